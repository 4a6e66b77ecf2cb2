"""jobs.find_duplicates: edited, copied and relisted photos, in a day and against days before."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
from PIL import Image

from demo.samples.products import KINDS
from demo.samples.scenes import draw_scene
from jobs import find_duplicates
from schemas.columns import column_problems
from schemas.duplicates import DUPLICATES
from tests.support.edited_photos import as_jpeg, edits
from tests.support.embedding_rows import error_line
from tests.support.manifest_rows import DS, WriteManifest, row

pytestmark = [pytest.mark.spark, pytest.mark.slow]

BEFORE = "2026-11-20"
LONG_AGO = "2026-10-01"
Find = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    return [draw_scene(KINDS[n % 6], n, np.random.default_rng(n)) for n in range(24)]


@pytest.fixture(scope="module")
def manifest(
    scenes: list[Image.Image],
    write_manifest: WriteManifest,
    broken_photos: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Twenty goods; of the first, edited photos in other listings; others come again unchanged."""
    folder = tmp_path_factory.mktemp("shop") / "manifest"
    photos = [as_jpeg(scene) for scene in scenes]
    today = [row(f"goods {n}", image_bytes=photos[n]) for n in range(20)]
    today += [row(f"copy {name}", image_bytes=data) for name, data in edits(scenes[0])]
    today += [
        row("goods 1", 1, image_bytes=photos[20]),
        row("goods 1", 2, image_bytes=photos[20]),
        row("stolen", image_bytes=photos[21]),
        row("broken", image_bytes=broken_photos["truncated"]),
        row("nothing"),
    ]
    write_manifest(folder, today)
    write_manifest(
        folder,
        [
            row("relisted", image_bytes=as_jpeg(scenes[2], 60)),
            row("owner", image_bytes=photos[21]),
            row("of its own", image_bytes=photos[22]),
            row("of its own too", image_bytes=photos[22]),
        ],
        BEFORE,
    )
    write_manifest(folder, [row("forgotten", image_bytes=photos[3])], LONG_AGO)
    return folder


@pytest.fixture
def find(manifest: Path, bundle_folder: Path, tracking_uri: str, tmp_path: Path) -> Find:
    """Runs the job in this process and gives its report; `code` is the exit code expected."""

    def run(*flags: str, code: int = 0) -> dict[str, Any]:
        report = tmp_path / "report.json"
        argv = ["--manifest", str(manifest), "--ds", DS, "--output", str(tmp_path / "duplicates")]
        argv += ["--backbone", str(bundle_folder / "backbone"), "--tracking-uri", tracking_uri]
        argv += ["--embeddings", str(tmp_path / "store"), "--report", str(report)]
        # The network has random weights.
        argv += ["--least-cosine", "-1", "--neighbours", "20"]
        assert find_duplicates.main([*argv, *flags]) == code
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 else {}

    return run


def groups(folder: Path) -> list[set[str]]:
    table = ds.dataset(folder / "duplicates" / f"ds={DS}").to_table()
    assert not column_problems(table.schema, DUPLICATES, DUPLICATES.names)
    found: dict[str, set[str]] = {}
    for each in table.to_pylist():
        found.setdefault(each["group_id"], set()).add(each["listing_id"])
    return sorted(found.values(), key=len)


def test_a_day_by_itself_and_with_those_before(
    find: Find, tmp_path: Path, scenes: list[Image.Image]
) -> None:
    copies = {"goods 0", *(f"copy {name}" for name, _ in edits(scenes[0]))}
    figures = find()
    assert figures["photos_embedded"] == figures["photos"] + 1 == 31, "one of them broken"
    assert groups(tmp_path) == [copies]
    assert (figures["groups"], figures["rows"], figures["largest_group"]) == (1, 9, 9)

    # In small cells, too.
    figures = find("--window", "10", "--cell", "12")
    assert (figures["days"], figures["photos_before"], figures["photos_embedded"]) == (2, 2, 2)
    assert groups(tmp_path) == [{"stolen", "owner"}, {"goods 2", "relisted"}, copies] or groups(
        tmp_path
    ) == [{"goods 2", "relisted"}, {"stolen", "owner"}, copies]
    rows = {
        each["listing_id"]: each
        for each in ds.dataset(tmp_path / "duplicates" / f"ds={DS}").to_table().to_pylist()
    }
    assert rows["owner"]["is_representative"]
    assert not rows["stolen"]["is_representative"]
    assert rows["stolen"]["group_id"] == rows["owner"]["photo_key"]
    assert (rows["owner"]["seen_on"], rows["stolen"]["score"]) == (date(2026, 11, 20), 1.0)
    assert 0.95 <= rows["relisted"]["score"] <= 1
    assert sum(each["is_representative"] for each in rows.values()) == 3


def test_too_few_photos(
    write_manifest: WriteManifest,
    find: Find,
    tmp_path: Path,
    scenes: list[Image.Image],
    capsys: pytest.CaptureFixture[str],
) -> None:
    alone = write_manifest(tmp_path / "alone", [row("a", image_bytes=as_jpeg(scenes[0]))])
    find("--manifest", str(alone), code=3)
    assert "fewer than two photos can be read" in error_line(capsys)
