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
from jobs.stages.fingerprint import describe_data, describe_rows
from jobs.stages.manifest import read_photos
from tests.support.manifest_rows import DS, DrawPhoto, Rows, WriteManifest, row

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

    def run(rows: Rows, where: str = "true") -> dict[str, Any]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        manifest = str(write_manifest(folder, rows))
        return describe_data(read_photos(spark, manifest, DS).where(where), manifest, DS)

    return run


@pytest.fixture(scope="module")
def digest(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Of `ROWS`."""
    manifest = str(write_manifest(tmp_path_factory.mktemp("rows"), ROWS))
    found: str = describe_data(read_photos(spark, manifest, DS), manifest, DS)["digest"]
    return found


def test_description(describe: Describe, tmp_path: Path) -> None:
    found = describe(ROWS)
    assert (found["manifest"], found["ds"], found["rows"]) == (str(tmp_path / "0"), DS, 6)
    assert len(found["digest"]) == 32
    assert int(found["digest"], 16) > 0
    assert describe(ROWS, "false")["rows"] == 0


def test_schemes_that_have_a_driver_are_counted(describe: Describe) -> None:
    uris = ["s3://b/a.jpg", "S3://b/b.jpg", "https://h/s3://", "/a/s3://", "nosuch://b/a", None]
    found = describe([row("a", n, image_uri=uri) for n, uri in enumerate(uris)])
    assert found["schemes"] == {"s3": 2, "https": 1}
    assert found["rows"] == len(uris)


def test_order_does_not_matter(describe: Describe, digest: str) -> None:
    assert describe(ROWS[::-1])["digest"] == digest


def test_files_and_partitions_do_not_matter(
    spark: SparkSession, write_manifest: WriteManifest, digest: str, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path / "two days", ROWS[:2])
    write_manifest(manifest, ROWS[2:], "2026-11-26")
    photos = read_photos(spark, str(manifest))
    assert describe_data(photos, str(manifest), None)["digest"] == digest


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
def test_what_matters(describe: Describe, digest: str, index: int, change: dict[str, Any]) -> None:
    changed = [*ROWS[:index], {**ROWS[index], **change}, *ROWS[index + 1 :]]
    assert describe(changed)["digest"] != digest


def test_a_row_more_matters(describe: Describe, digest: str) -> None:
    fewer = {describe(ROWS[:n])["digest"] for n in (1, 3, 4, 5)}
    assert len(fewer | {digest}) == 5


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
    read = describe_data(read_photos(spark, manifest, DS), manifest, DS)
    assert [{**described[0], "schemes": {}}] == [read]
    assert described[0]["rows"] == 3


def test_passwords_are_left_out() -> None:
    assert describe_rows([], "s3://key:secret@bucket/manifest", None)["manifest"] == (
        "s3://bucket/manifest"
    )
