"""Rows of a manifest: the keys of their photos, and what is wrong with them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.stages.manifest import read_photos
from tests.support.manifest_rows import DS, WriteManifest

pytestmark = pytest.mark.spark

ROW = {"listing_id": "a", "image_index": 0, "image_uri": "/photos/a.jpg"}
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def read_one(
    spark: SparkSession, write_manifest: WriteManifest, folder: Path, row: Mapping[str, Any]
) -> dict[str, Any]:
    manifest = write_manifest(folder, [{**ROW, **row}])
    (photo,) = read_photos(spark, str(manifest), DS).collect()
    return photo.asDict()


def test_key_given_comes_first(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    photo = read_one(
        spark,
        write_manifest,
        tmp_path,
        {"image_key": "ABC", "image_uri": None, "image_bytes": b"photo", "updated_at": NOON},
    )
    assert (photo["image_key"], photo["photo_key"]) == ("abc", "abc")
    assert photo["storable"]


def test_key_of_bytes_is_their_digest(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    row = {"image_uri": None, "image_bytes": b"photo", "updated_at": NOON}
    photo = read_one(spark, write_manifest, tmp_path, row)
    assert (photo["photo_key"], photo["storable"]) == (sha256(b"photo").hexdigest(), True)


def test_empty_key_is_no_key(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    row = {"image_key": "", "image_uri": None, "image_bytes": b"photo"}
    photo = read_one(spark, write_manifest, tmp_path / "bytes", row)
    assert (photo["photo_key"], photo["storable"]) == (sha256(b"photo").hexdigest(), True)
    photo = read_one(spark, write_manifest, tmp_path / "uri", {"image_key": ""})
    assert (bool(photo["photo_key"]), photo["storable"]) == (True, False)


def test_key_of_an_address_changes_with_it_and_with_its_time(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    rows = [
        {"image_uri": "/a", "updated_at": NOON},
        {"image_uri": "/a", "updated_at": NOON.replace(microsecond=1)},
        {"image_uri": "/b", "updated_at": NOON},
        {"image_uri": "/a", "updated_at": None},
        {"image_uri": "/a", "updated_at": NOON, "listing_id": "another", "image_index": 5},
    ]
    manifest = write_manifest(
        tmp_path, [{**ROW, "split": str(i), **row} for i, row in enumerate(rows)]
    )
    photos = read_photos(spark, str(manifest), DS).orderBy("split").collect()
    keys = [photo["photo_key"] for photo in photos]
    assert len(set(keys[:4])) == 4
    assert keys[4] == keys[0]
    assert [photo["storable"] for photo in photos] == [True, True, True, False, True]
    assert not any(photo["keyed_by_content"] for photo in photos)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_key_of_an_address_is_the_same_in_every_time_zone(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path, zone: str
) -> None:
    # Europe's clocks, and later those of New York, show the same hour twice.
    times = ["2026-10-25 00:30:00", "2026-10-25 01:30:00.125", "2026-11-01 05:30:00.000001"]
    times += ["2026-11-01 06:30:00.000001", "1965-03-29 01:30:00"]
    rows = [
        {**ROW, "image_index": i, "updated_at": datetime.fromisoformat(f"{time}+00:00")}
        for i, time in enumerate(times)
    ]
    before = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", zone)
    try:
        manifest = write_manifest(tmp_path, rows)
        photos = read_photos(spark, str(manifest), DS).orderBy("image_index").collect()
    finally:
        spark.conf.set("spark.sql.session.timeZone", before or "UTC")
    keys = [sha256(f"/photos/a.jpg\n{time}".encode()).hexdigest() for time in times]
    assert [photo["photo_key"] for photo in photos] == keys
    assert [photo["cheap_key"] for photo in photos] == keys


@pytest.mark.parametrize(
    ("uri", "data", "problem"),
    [
        ("/a", None, None),
        (None, b"", None),
        ("/a", b"photo", "ambiguous_source"),
        (None, None, "no_photo"),
    ],
)
def test_problem_is_a_source_that_is_not_exactly_one(
    spark: SparkSession,
    write_manifest: WriteManifest,
    tmp_path: Path,
    uri: str | None,
    data: bytes | None,
    problem: str | None,
) -> None:
    photo = read_one(spark, write_manifest, tmp_path, {"image_uri": uri, "image_bytes": data})
    assert photo["problem"] == problem


def test_rows_without_a_listing_are_kept_for_counting(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    photo = read_one(spark, write_manifest, tmp_path, {"listing_id": None, "image_index": None})
    assert (photo["listing_id"], photo["image_index"]) == (None, None)
