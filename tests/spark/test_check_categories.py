"""What the check of a published partition passes, and each thing that it must find."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs import check_categories
from tests.support.embedding_rows import error_line
from tests.support.manifest_rows import DS, ODD_IDS, Categorize, DrawPhoto, WriteManifest, row

pytestmark = pytest.mark.spark

Published = tuple[Path, Path]
Spoil = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def published(
    categorize: Categorize,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    broken_photos: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Published:
    """A manifest with odd ids, a row of no listing and broken photos, and its categories."""
    folder = tmp_path_factory.mktemp("published")
    rows = [row(name, image_bytes=draw_photo("warm/red", i)) for i, name in enumerate(ODD_IDS)]
    rows += [row("broken", i, image_bytes=data) for i, data in enumerate(broken_photos.values())]
    rows.append(row(None, image_bytes=draw_photo("cold/blue")))
    manifest = write_manifest(folder / "manifest", rows)
    categorize(manifest, folder / "categories")
    return manifest, folder / "categories"


def check(manifest: Path, output: Path | str, *flags: str) -> int:
    argv = ["--manifest", str(manifest), "--ds", DS, "--output", str(output), *flags]
    return check_categories.main(argv)


def test_what_the_job_published_passes_and_is_counted(
    published: Published, broken_photos: dict[str, bytes], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    assert check(*published, "--report", str(report)) == 0
    figures: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    table = pq.read_table(published[1] / f"ds={DS}")
    assert figures["ds"] == DS
    assert figures["listings"] == table.num_rows == len(ODD_IDS) + 1
    for decision in ("assigned", "needs_review", "rejected"):
        assert figures[decision] == pc.sum(pc.equal(table["decision"], decision)).as_py()
    assert figures["photos_used"] == len(ODD_IDS)
    assert figures["photos_rejected"] == len(broken_photos)
    assert {figures["run_id"]} == set(table["run_id"].to_pylist())
    assert {figures["model_version"]} == set(table["model_version"].to_pylist())


def change(column: str, value: object, of: str = "a") -> Spoil:
    """Sets a column of one listing."""

    def spoil(table: pa.Table) -> pa.Table:
        field = table.schema.field(column).with_nullable(True)
        hit = pc.equal(table["listing_id"], of)
        fresh = pc.if_else(hit, pa.scalar(value, field.type), table[column])
        return table.set_column(table.schema.get_field_index(column), field, fresh)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.filter(pc.not_equal(t["listing_id"], "a")), "1 missing (such as 'a')"),
        (lambda t: t.slice(0, 0), f"{len(ODD_IDS) + 1} missing"),
        (change("listing_id", "stranger"), "1 not in the manifest (such as 'stranger')"),
        # Two files, so that the rows of the listing are in two batches.
        (lambda t: [t, t.slice(3, 1)], "1 there more than once"),
        (change("images_used", 2), "photos used"),
        (change("run_id", "another"), "rows of 2 runs"),
        (change("decision", "perhaps"), "column decision is 'perhaps'"),
        (change("bundle_digest", None), "column bundle_digest is null"),
        (lambda t: t.drop_columns("taxonomy_version"), "column taxonomy_version is missing"),
        (
            lambda t: [t.slice(0, 2).drop_columns("taxonomy_version"), t.slice(2)],
            "column taxonomy_version is null",
        ),
        (
            lambda t: [t.slice(0, 2), t.slice(2).drop_columns("taxonomy_version")],
            "column taxonomy_version is null",
        ),
        (lambda t: t.set_column(8, "images_used", t["images_used"].cast("int64")), "is int64"),
    ],
    ids=[
        "lost",
        "all lost",
        "strange",
        "repeated",
        "photos",
        "mixture",
        "value",
        "null",
        "column",
        "column of the first file",
        "column of another file",
        "type",
    ],
)
def test_what_is_wrong_with_the_rows_is_3(
    published: Published,
    spoil: Callable[[pa.Table], Any],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = pq.read_table(published[1] / f"ds={DS}")
    # Spark would go by the types that it noted for itself.
    spoiled = spoil(table.replace_schema_metadata(None))
    partition = tmp_path / f"ds={DS}"
    partition.mkdir()
    for number, part in enumerate(spoiled if isinstance(spoiled, list) else [spoiled]):
        pq.write_table(part, partition / f"part-{number}.parquet", coerce_timestamps="us")
    report = tmp_path / "report.json"
    assert check(published[0], tmp_path, "--report", str(report)) == 3
    assert message in error_line(capsys)
    assert not report.exists()


def test_nothing_published_is_3(
    published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(published[0], tmp_path) == 3
    assert "nothing is published there" in error_line(capsys)
    (tmp_path / f"ds={DS}").mkdir()
    (tmp_path / f"ds={DS}" / "part-0.parquet").write_bytes(b"not Parquet")
    assert check(published[0], tmp_path) == 3
    assert f"ds={DS}" in error_line(capsys)


def test_remote_output_is_2(published: Published, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(published[0], "s3://bucket/categories") == 2
    assert "s3://bucket/categories is no local or mounted folder" in error_line(capsys)
