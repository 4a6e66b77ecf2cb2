"""The fingerprint of a manifest: of its content, not of its layout, and cheap to have."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from jobs import build_manifest
from jobs.manifest import describe_data, describe_rows, read_photos
from tests.spark.manifest_rows import DS, DrawPhoto, Rows, WriteManifest, row

pytestmark = pytest.mark.spark

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
ROWS: Rows = [
    row("a", 0, image_uri="/a.jpg", image_key="1" * 64, category_id="red", split="train"),
    row("a", 1, image_uri="/b.jpg", updated_at=NOON),
    row("b", 0, image_bytes=b"photo", category_id="blue"),
    row("b", 0, image_bytes=b"photo", category_id="blue"),
    row("c", 0),
    row(None, None, image_uri="/c.jpg"),
]

Describe = Callable[..., dict[str, Any]]


@pytest.fixture
def describe(spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path) -> Describe:
    """Writes rows and describes them; each call has a folder of its own."""

    def run(rows: Rows) -> dict[str, Any]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        manifest = str(write_manifest(folder, rows))
        return describe_data(read_photos(spark, manifest, DS), manifest, DS)

    return run


def test_description(describe: Describe, tmp_path: Path) -> None:
    found = describe(ROWS)
    assert (found["manifest"], found["ds"], found["rows"]) == (str(tmp_path / "0"), DS, 6)
    assert len(found["digest"]) == 32
    assert int(found["digest"], 16) > 0
    assert describe([])["rows"] == 0


def test_order_does_not_matter(describe: Describe) -> None:
    assert describe(ROWS)["digest"] == describe(ROWS[::-1])["digest"]


def test_files_and_partitions_do_not_matter(
    spark: SparkSession, write_manifest: WriteManifest, describe: Describe, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path / "two days", ROWS[:2])
    write_manifest(manifest, ROWS[2:], "2026-11-26")
    photos = read_photos(spark, str(manifest))
    assert describe_data(photos, str(manifest), None)["digest"] == describe(ROWS)["digest"]


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (0, {"listing_id": "other"}),
        (0, {"image_index": 7}),
        (0, {"image_key": "2" * 64}),
        (0, {"category_id": None}),
        (0, {"category_id": "train", "split": "red"}),
        (1, {"image_uri": "/other.jpg"}),
        (1, {"updated_at": None}),
        (2, {"image_bytes": b"another photo"}),
    ],
)
def test_what_matters(describe: Describe, index: int, change: dict[str, Any]) -> None:
    changed = [*ROWS[:index], {**ROWS[index], **change}, *ROWS[index + 1 :]]
    assert describe(changed)["digest"] != describe(ROWS)["digest"]


def test_a_row_more_matters(describe: Describe) -> None:
    assert len({describe(ROWS[:n])["digest"] for n in range(len(ROWS) + 1)}) == len(ROWS) + 1


def test_image_bytes_are_not_read_where_there_is_a_key(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    rows = [row(str(i), image_bytes=bytes([i]) * 5000, image_key=str(i)) for i in range(50)]
    manifest = write_manifest(tmp_path, rows)
    before = describe_data(read_photos(spark, str(manifest), DS), str(manifest), DS)
    (file,) = (manifest / f"ds={DS}").iterdir()
    columns = pq.read_metadata(file).row_group(0)
    (chunk,) = (
        columns.column(i)
        for i in range(columns.num_columns)
        if columns.column(i).path_in_schema == "image_bytes"
    )
    content = bytearray(file.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    file.write_bytes(content)
    photos = read_photos(spark, str(manifest), DS)
    assert describe_data(photos, str(manifest), DS) == before
    with pytest.raises(Py4JJavaError):
        photos.select("image_bytes").collect()


@pytest.mark.parametrize("flags", [(), ("--embed-bytes",)])
def test_what_builds_a_manifest_and_what_reads_it_agree(
    spark: SparkSession,
    draw_photo: DrawPhoto,
    tracking_uri: str,
    flags: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("ä.jpg", "b.jpg"):
        (images / name).write_bytes(draw_photo("warm/red"))
    listings = tmp_path / "listings.csv"
    listings.write_text(
        'listing_id,path,category_id,split\n"two\nlines",ä.jpg,red,train\nL2,b.jpg,,\n'
        "L2,nosuch.jpg,,val\n",
        encoding="utf-8",
    )
    described: list[dict[str, Any]] = []

    def keep(*arguments: Any) -> dict[str, Any]:
        described.append(describe_rows(*arguments))
        return described[-1]

    monkeypatch.setattr(build_manifest, "describe_rows", keep)
    manifest = str(tmp_path / "manifest")
    argv = ["--images", str(images), "--listings", str(listings), "--output", manifest, "--ds", DS]
    assert build_manifest.main([*argv, "--tracking-uri", tracking_uri, *flags]) == 0
    assert described == [describe_data(read_photos(spark, manifest, DS), manifest, DS)]
    assert described[0]["rows"] == 3


def test_passwords_are_left_out() -> None:
    assert describe_rows([], "s3://key:secret@bucket/manifest", None)["manifest"] == (
        "s3://bucket/manifest"
    )
