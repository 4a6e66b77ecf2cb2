from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from jobs.manifest import PHOTO_COLUMNS, read_photos
from schemas.errors import DataContractError
from schemas.manifest import MANIFEST

pytestmark = pytest.mark.spark

DS = "2026-11-25"
ROW = {"listing_id": "a", "image_index": 0, "image_uri": "/photos/a.jpg"}
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)

WriteManifest = Callable[..., Path]


def schema_with(**types: pa.DataType | None) -> pa.Schema:
    """The manifest's schema with some columns of another type, or left out."""
    fields = {field.name: field.type for field in MANIFEST} | types
    return pa.schema([(name, kind) for name, kind in fields.items() if kind is not None])


def read_one(
    spark: SparkSession, write_manifest: WriteManifest, folder: Path, row: Mapping[str, Any]
) -> dict[str, Any]:
    manifest = write_manifest(folder, [{**ROW, **row}])
    (photo,) = read_photos(spark, str(manifest), DS).collect()
    return photo.asDict()


def complaint(spark: SparkSession, manifest: Path, ds: str | None = DS) -> str:
    with pytest.raises(DataContractError) as caught:
        read_photos(spark, str(manifest), ds)
    message = str(caught.value)
    assert str(manifest) in message
    assert "\n" not in message
    return message


# ---------------------------------------------------------------- what stops a job


@pytest.mark.parametrize("name", ["listing_id", "image_index"])
def test_missing_column_is_named(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path, name: str
) -> None:
    row = {key: value for key, value in ROW.items() if key != name}
    manifest = write_manifest(tmp_path, [row], schema=schema_with(**{name: None}))
    assert f"column {name} is missing" in complaint(spark, manifest)


def test_missing_sources_are_named(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    schema = schema_with(image_uri=None, image_bytes=None)
    manifest = write_manifest(tmp_path, [{"listing_id": "a", "image_index": 0}], schema=schema)
    assert "image_uri and image_bytes are both missing" in complaint(spark, manifest)


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("listing_id", pa.int64(), 7),
        ("image_index", pa.string(), "0"),
        ("image_index", pa.float64(), 0.0),
        ("image_uri", pa.binary(), b"/photos/a.jpg"),
        ("image_bytes", pa.string(), None),
        ("image_key", pa.binary(), None),
        ("category_id", pa.int32(), None),
        ("slices", pa.map_(pa.string(), pa.int32()), None),
        ("updated_at", pa.string(), None),
    ],
)
def test_wrong_type_is_named(
    spark: SparkSession,
    write_manifest: WriteManifest,
    tmp_path: Path,
    name: str,
    kind: pa.DataType,
    value: object,
) -> None:
    manifest = write_manifest(tmp_path, [{**ROW, name: value}], schema=schema_with(**{name: kind}))
    assert f"column {name} is " in complaint(spark, manifest)


def test_missing_partition_and_manifest_are_named(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path / "manifest", [ROW], ds="2026-11-24")
    assert f"ds={DS}" in complaint(spark, manifest)
    complaint(spark, tmp_path / "nowhere", None)


@pytest.mark.parametrize("content", [b"listing_id,image_uri\n", b"PAR1 but no more PAR1"])
def test_file_that_is_no_parquet_is_named(
    spark: SparkSession, tmp_path: Path, content: bytes
) -> None:
    partition = tmp_path / f"ds={DS}"
    partition.mkdir()
    (partition / "part-0.parquet").write_bytes(content)
    assert "Parquet" in complaint(spark, tmp_path)


@pytest.mark.parametrize("ds", [DS, None])
def test_file_without_a_byte_is_named(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path, ds: str | None
) -> None:
    manifest = write_manifest(tmp_path / "manifest", [ROW])
    assert read_photos(spark, str(manifest), ds).count() == 1
    (manifest / f"ds={DS}" / "part-1.parquet").touch()
    assert "part-1.parquet: is empty" in complaint(spark, manifest, ds)


def test_folder_without_files_is_named(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / f"ds={DS}").mkdir()
    assert "Parquet" in complaint(spark, tmp_path)


# ---------------------------------------------------------------- what does not


def test_optional_columns_may_be_absent_and_others_are_ignored(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    schema = pa.schema(
        [
            ("listing_id", pa.string()),
            ("image_index", pa.int32()),
            ("image_bytes", pa.binary()),
            ("seller", pa.string()),
            ("problem", pa.string()),
        ]
    )
    row = {"listing_id": "a", "image_index": 3, "image_bytes": b"photo", "problem": "none"}
    (photo,) = read_photos(spark, str(write_manifest(tmp_path, [row], schema=schema))).collect()
    assert photo.asDict() == {
        "listing_id": "a",
        "image_index": 3,
        "image_uri": None,
        "image_bytes": b"photo",
        "photo_key": sha256(b"photo").hexdigest(),
        "cheap_key": None,
        "storable": True,
        "problem": None,
        "category_id": None,
        "split": None,
        "slices": None,
    }


def test_other_layouts_of_the_same_values_are_read(spark: SparkSession, tmp_path: Path) -> None:
    partition = tmp_path / f"ds={DS}"
    partition.mkdir()
    table = pa.table(
        {
            "listing_id": pa.array(["a", "b"]).dictionary_encode(),
            "image_index": pa.array([1, 2**40], pa.int64()),
            "image_uri": pa.array(["x", "y"], pa.large_string()),
            "updated_at": pa.array([NOON, None], pa.timestamp("ms")),
        }
    )
    pq.write_table(table, partition / "part-0.parquet")
    photos = read_photos(spark, str(tmp_path), DS).orderBy("listing_id").collect()
    assert [photo["image_index"] for photo in photos] == [1, None]
    assert [photo["storable"] for photo in photos] == [True, False]


def test_only_the_partition_asked_for_is_read(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    write_manifest(tmp_path, [{**ROW, "listing_id": "old"}], ds="2026-11-24")
    write_manifest(tmp_path, [{**ROW, "listing_id": "new"}])
    one = read_photos(spark, f"{tmp_path}/", DS)
    every = read_photos(spark, str(tmp_path))
    assert one.columns == every.columns == list(PHOTO_COLUMNS)
    assert [photo["listing_id"] for photo in one.collect()] == ["new"]
    assert sorted(photo["listing_id"] for photo in every.collect()) == ["new", "old"]


# ---------------------------------------------------------------- keys


def test_key_given_comes_first(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    photo = read_one(
        spark,
        write_manifest,
        tmp_path,
        {"image_key": "abc", "image_uri": None, "image_bytes": b"photo", "updated_at": NOON},
    )
    assert (photo["photo_key"], photo["storable"]) == ("abc", True)


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
