"""Files of a manifest: those that stop a job, with their names, and those that are read."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from jobs.stages.manifest import PHOTO_COLUMNS, read_photos
from schemas.errors import DataContractError
from schemas.manifest import MANIFEST
from tests.support.manifest_rows import DS, WriteManifest

pytestmark = pytest.mark.spark

ROW = {"listing_id": "a", "image_index": 0, "image_uri": "/photos/a.jpg"}
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def schema_with(**types: pa.DataType | None) -> pa.Schema:
    """The manifest's schema with some columns of another type, or left out."""
    fields = {field.name: field.type for field in MANIFEST} | types
    return pa.schema([(name, kind) for name, kind in fields.items() if kind is not None])


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
        ("image_bytes", pa.string(), "photo"),
        ("image_key", pa.binary(), b"key"),
        ("category_id", pa.int32(), 5),
        ("slices", pa.map_(pa.string(), pa.int32()), [("a", 1)]),
        ("updated_at", pa.string(), "2026"),
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


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("part-1.parquet", b"", "is empty, so rows are missing"),
        ("country=de/part-0.parquet", b"", "is empty"),
        ("part-1.pq", b"", "is empty"),
        ("part-1.PARQUET", b"", "is empty"),
        ("part-1", b"", "is empty"),
        ("listings.csv", b"listing_id,image_uri\n", "is not Parquet"),
        ("part-1.parquet", b"PAR", "is not Parquet"),
        ("part-1.parquet", b"PAR1 but no more PAR1", "is damaged"),
        ("part-1.parquet", b"PAR1" + bytes(9) + b"\xff\xff\xff\x7fPAR1", "is damaged"),
    ],
)
@pytest.mark.parametrize("ds", [DS, None])
def test_file_without_rows_of_a_manifest_is_named(
    spark: SparkSession,
    write_manifest: WriteManifest,
    tmp_path: Path,
    name: str,
    content: bytes,
    problem: str,
    ds: str | None,
) -> None:
    manifest = write_manifest(tmp_path / "manifest", [ROW])
    file = manifest / f"ds={DS}" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    assert f"{file}: {problem}" in complaint(spark, manifest, ds)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"image_index": [0], "image_uri": ["/b"]}, "column listing_id is missing"),
        ({"listing_id": ["b"], "image_uri": ["/b"]}, "column image_index is missing"),
        ({"listing_id": ["b"], "image_index": [0]}, "image_uri and image_bytes are both missing"),
        ({**{name: [value] for name, value in ROW.items()}, "split": [7]}, "split is int64"),
    ],
)
def test_columns_are_checked_in_every_file(
    spark: SparkSession,
    write_manifest: WriteManifest,
    tmp_path: Path,
    table: dict[str, list[object]],
    problem: str,
) -> None:
    file = write_manifest(tmp_path, [ROW]) / f"ds={DS}" / "part-1.parquet"
    pq.write_table(pa.table(table), file)
    message = complaint(spark, tmp_path)
    assert f"{file}: " in message
    assert problem in message


def test_codec_without_a_class_is_named(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    file = write_manifest(tmp_path, [ROW]) / f"ds={DS}" / "part-1.parquet"
    # The footer is longer than most.
    table = pa.Table.from_pylist([ROW]).replace_schema_metadata({"note": "long" * 20_000})
    # For a column that no job reads, any codec will do.
    pq.write_table(table.append_column("price", [[3]]), file, compression={"price": "brotli"})
    assert read_photos(spark, str(tmp_path)).count() == 2
    pq.write_table(table, file, compression="brotli")
    assert f"{file}: is compressed with BROTLI" in complaint(spark, tmp_path)


def test_folder_without_rows_is_named(
    spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    partition = tmp_path / f"ds={DS}"
    partition.mkdir()
    assert "has no row there" in complaint(spark, tmp_path)
    write_manifest(tmp_path, [])
    assert "has no row there" in complaint(spark, tmp_path)
    # A file without rows may have any columns: Polars and pandas know no types for them.
    pq.write_table(pa.table({"listing_id": pa.nulls(0)}), partition / "part-1.parquet")
    assert "has no row there" in complaint(spark, tmp_path)


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
        "image_key": None,
        "photo_key": sha256(b"photo").hexdigest(),
        "cheap_key": None,
        "keyed_by_content": True,
        "storable": True,
        "problem": None,
        "category_id": None,
        "split": None,
        "slices": None,
        "attributes": None,
        "concepts": None,
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


MIXED: list[tuple[str, dict[str, Any]]] = [
    ("", {"image_index": pa.array([0], pa.int32()), "image_uri": ["/0"]}),
    (
        "",
        {
            "image_index": pa.array([1], pa.int64()),
            "image_bytes": [b"1"],
            "split": ["test"],
            "updated_at": pa.array([NOON], pa.timestamp("ns")),
        },
    ),
    (
        "",
        {
            "image_index": pa.array([2], pa.uint32()),
            "image_uri": ["/2"],
            "image_bytes": pa.nulls(1),
            "split": pa.array([None], pa.int32()),
            "updated_at": pa.array([NOON], pa.timestamp("ns", tz="Europe/Berlin")),
        },
    ),
    (
        "country=de/hour=10:00",
        {
            "image_index": pa.array([3], pa.int8()),
            "image_uri": ["/2"],
            "split": pa.array(["val"]).dictionary_encode(),
            "updated_at": pa.array([NOON], pa.timestamp("ms")),
            # Types that Spark refuses, and names that differ by case.
            "half": pa.array([1], pa.float16()),
            "id": pa.array([bytes(16)], pa.uuid()),
            "price": pa.array([1], pa.decimal256(60, 2)),
            "time": pa.array([1], pa.time64("ns")),
            "created": pa.array([NOON], pa.timestamp("ns")),
            "nothing": pa.nulls(1),
            "category": ["a"],
            "Category": ["b"],
            "Split": ["train"],
            "Image_Bytes": [b"no photo"],
        },
    ),
    ("split=007", {"image_index": [4], "image_uri": ["/4"], "split": pa.nulls(1)}),
]
"""Folder and columns of the files of one partition."""


@pytest.mark.parametrize("files", [MIXED, MIXED[::-1]], ids=["forwards", "backwards"])
def test_every_file_has_columns_of_its_own(
    spark: SparkSession, tmp_path: Path, files: list[tuple[str, dict[str, Any]]]
) -> None:
    manifest = tmp_path / "a [1] {x,y} ?* %20" / "10:00"
    (manifest.parent / "11:00").mkdir(parents=True)
    for number, (folder, columns) in enumerate(files):
        file = manifest / f"ds={DS}" / folder / f"part-{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"listing_id": ["a"], **columns}), file)
    photos = read_photos(spark, str(manifest), DS).orderBy("image_index").collect()
    assert [photo["image_index"] for photo in photos] == [0, 1, 2, 3, 4]
    assert [photo["image_uri"] for photo in photos] == ["/0", None, "/2", "/2", "/4"]
    assert [photo["image_bytes"] for photo in photos] == [None, b"1", None, None, None]
    assert [photo["split"] for photo in photos] == [None, "test", None, "val", "007"]
    assert {photo["problem"] for photo in photos} == {None}
    assert [photo["storable"] for photo in photos] == [False, True, True, True, False]
    dated = sha256(b"/2\n2026-11-25 12:00:00").hexdigest()
    assert [photo["photo_key"] for photo in photos][2:4] == [dated, dated]


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
