"""jobs.find_new_kinds: two new kinds of a day are two clusters, and what it refuses."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import find_new_kinds
from schemas.columns import column_problems
from schemas.new_kinds import NEW_KINDS
from seer_model.categorizer.bundle import Bundle, save_bundle
from tests.support.embedding_rows import error_line
from tests.support.manifest_rows import (
    DS,
    Categorize,
    DrawPhoto,
    ReadCategories,
    WriteManifest,
    row,
)

pytestmark = pytest.mark.spark

KIND = 8
Find = Callable[..., dict[str, Any]]


def draw_new(kind: str, seed: int) -> bytes:
    """A photo that is black or white all over, but for a little, which no colour is like."""
    little = np.random.default_rng(seed).integers(0, 6, (72, 96, 3))
    buffer = io.BytesIO()
    pixels = little if kind == "black" else 255 - little
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, to which less is familiar: its 48 listings say little of the limits."""
    assert bundle.familiarity is not None
    limits = np.full_like(bundle.familiarity.limits, 1000)
    folder = tmp_path_factory.mktemp("model") / "strict"
    save_bundle(replace(bundle, familiarity=replace(bundle.familiarity, limits=limits)), folder)
    return folder


@pytest.fixture(scope="module")
def day(
    categorize: Categorize,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A day with two new kinds, one of them in listings of two photos, and its categories."""
    folder = tmp_path_factory.mktemp("day")
    rows = [row(f"red {i}", image_bytes=draw_photo("warm/red", i)) for i in range(6)]
    rows += [row(f"black {i}", image_bytes=draw_new("black", i)) for i in range(KIND)]
    for i in range(KIND + 1):
        rows += [row(f"white {i}", n, image_bytes=draw_new("white", 2 * i + n)) for n in range(2)]
    manifest = write_manifest(folder / "manifest", rows)
    flags = ("--model", str(model), "--embeddings", str(folder / "store"))
    categorize(manifest, folder / "categories", *flags)
    return folder


@pytest.fixture
def find(day: Path, model: Path, tracking_uri: str, tmp_path: Path) -> Find:
    """Runs the job in this process and gives its report; `code` is the exit code expected."""

    def run(*flags: str, code: int = 0) -> dict[str, Any]:
        report = tmp_path / "report.json"
        argv = ["--categories", str(day / "categories"), "--manifest", str(day / "manifest")]
        argv += ["--ds", DS, "--model", str(model), "--embeddings", str(day / "store")]
        argv += ["--output", str(tmp_path / "found"), "--tracking-uri", tracking_uri]
        assert find_new_kinds.main([*argv, "--report", str(report), *flags]) == code
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 else {}

    return run


def test_two_new_kinds_are_two_clusters(
    day: Path, find: Find, read_categories: ReadCategories, bundle: Bundle, tmp_path: Path
) -> None:
    published = read_categories(day / "categories")
    is_unfamiliar = pc.equal(published["review_reason"], "unfamiliar")
    unfamiliar = published.filter(is_unfamiliar)["listing_id"].to_pylist()
    new = {name for name in published["listing_id"].to_pylist() if not name.startswith("red")}
    assert new <= set(unfamiliar)

    figures = find()
    assert figures["listings"] == len(published)
    assert figures["to_review"] == figures["looked_at"] == len(unfamiliar)
    assert figures["photos_embedded"] == figures["without_vector"] == 0
    assert figures["clusters"] == 2
    assert figures["clustered"] == len(new)

    table = pq.read_table(tmp_path / "found" / f"ds={DS}" / "new_kinds.parquet")
    assert not column_problems(table.schema, NEW_KINDS, NEW_KINDS.names)
    assert sorted(table["listing_id"].to_pylist()) == sorted(unfamiliar)
    clusters = dict(zip(*table.select(["listing_id", "cluster"]).to_pydict().values(), strict=True))
    assert {name: number for name, number in clusters.items() if number} == {
        name: 1 if name.startswith("white") else 2 for name in new
    }

    page = (tmp_path / "found" / f"ds={DS}" / "new_kinds.html").read_text(encoding="utf-8")
    assert f"Cluster 1: {KIND + 1} listings" in page
    assert f"Cluster 2: {KIND} listings" in page
    assert page.count('<img alt="white') == page.count('<img alt="black') == 6
    assert any(" &gt; ".join(bundle.tree.taxonomy[c].path) in page for c in bundle.tree.classes)

    sampled = find("--most-listings", "7")
    assert (
        sampled["looked_at"]
        == pq.read_metadata(tmp_path / "found" / f"ds={DS}" / "new_kinds.parquet").num_rows
        == 7
    )
    page = (tmp_path / "found" / f"ds={DS}" / "new_kinds.html").read_text(encoding="utf-8")
    assert "Only 7 of them" in page


def test_a_day_without_any_is_said_to_have_none(
    find: Find,
    categorize: Categorize,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    model: Path,
    tmp_path: Path,
) -> None:
    rows = [row("blue", image_bytes=draw_photo("cold/blue", spread=0))]
    manifest = write_manifest(tmp_path / "manifest", rows)
    categories = tmp_path / "categories"
    categorize(manifest, categories, "--model", str(model))
    figures = find("--categories", str(categories), "--manifest", str(manifest))
    assert figures["listings"] == 1
    assert figures["to_review"] == figures["clusters"] == 0
    assert pq.read_table(tmp_path / "found" / f"ds={DS}" / "new_kinds.parquet").num_rows == 0
    page = (tmp_path / "found" / f"ds={DS}" / "new_kinds.html").read_text(encoding="utf-8")
    assert "No listing of the day is unfamiliar" in page


def test_another_model_or_an_old_day_is_refused(
    day: Path, find: Find, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = pq.read_table(day / "categories" / f"ds={DS}")
    # Spark would read the columns of its own description of them.
    published = published.replace_schema_metadata(None)
    digest = pa.array(["0" * 64] * len(published))
    others = published.set_column(
        published.schema.get_field_index("bundle_digest"), "bundle_digest", digest
    )
    for table, code, message in (
        (others, 2, "name that one"),
        (published.drop_columns("review_reason"), 3, "categorize the day again"),
    ):
        folder = tmp_path / f"code {code}" / f"ds={DS}"
        folder.mkdir(parents=True)
        pq.write_table(table, folder / "part-0.parquet", coerce_timestamps="us")
        find("--categories", str(folder.parent), code=code)
        assert message in error_line(capsys)
