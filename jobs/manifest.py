"""Reading a manifest with Spark: contract first, then one normalised row a photo; fingerprints."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StringType, TimestampType

from schemas.errors import DataContractError
from schemas.manifest import check_manifest
from schemas.rejects import RejectReason
from seer_model.credentials import without_passwords

__all__ = ["PHOTO_COLUMNS", "describe_data", "describe_rows", "read_photos"]

_OPTIONAL = {
    "image_uri": "string",
    "image_bytes": "binary",
    "image_key": "string",
    "category_id": "string",
    "split": "string",
    "slices": "map<string,string>",
    "updated_at": "timestamp",
}

PHOTO_COLUMNS = (
    "listing_id",
    "image_index",
    "image_uri",
    "image_bytes",
    "photo_key",
    "cheap_key",
    "storable",
    "problem",
    "category_id",
    "split",
    "slices",
)
"""What `read_photos` gives. `photo_key`: what a photo's embedding is stored under. `cheap_key`:
that key, or null where it takes reading `image_bytes`. `storable`: whether the key changes when the
photo does. `problem`: why there is nothing to read, or null."""

_ROW = ("listing_id", "image_index", "category_id", "split")
_NULL = "\0"
_HEX_DIGITS = 15
_DIGEST_DIGITS = 32


def read_photos(spark: SparkSession, manifest: str, ds: str | None = None) -> DataFrame:
    """The photos of a manifest, or of one of its partitions.

    The key of a photo is its `image_key`; without one the SHA-256 of `image_bytes`, or else the
    SHA-256 of `image_uri` and `updated_at`. A URI without `updated_at` gets a key too, but as the
    photo behind it may change unseen, its embedding is not kept in a store.

    Returns:
        `PHOTO_COLUMNS`, a row a photo; rows without a `listing_id` are still among them.

    Raises:
        DataContractError: The partition is missing, a column is missing or of the wrong type, or a
            file is damaged.
    """
    path = manifest if ds is None else f"{manifest.rstrip('/')}/ds={ds}"
    _refuse_empty_files(spark, path if ds is not None else f"{path.rstrip('/')}/*")
    try:
        frame = spark.read.option("basePath", manifest).parquet(path)
    except AnalysisException as error:
        condition = error.getCondition()
        if condition == "PATH_NOT_FOUND":
            raise DataContractError(f"{path}: no such manifest") from error
        raise DataContractError(f"{path}: not a Parquet manifest ({condition})") from error
    except Py4JJavaError as error:
        if "FAILED_READ_FILE" not in str(error):
            raise
        found = re.search(r"reading file \S*/(\S+?)\.?\s", str(error))
        name = found[1] if found else "a file in it"
        raise DataContractError(f"{path}: {name} is no Parquet, or damaged") from error
    check_manifest(to_arrow_schema(frame.schema, timezone="UTC"), path)
    for name, kind in _OPTIONAL.items():
        if name not in frame.columns:
            frame = frame.withColumn(name, F.lit(None).cast(kind))
    frame = (
        frame.withColumn("image_index", F.col("image_index").try_cast("int"))
        .withColumn("image_key", F.nullif(F.col("image_key"), F.lit("")))
        .withColumn("problem", _problem())
        .withColumn("photo_key", F.coalesce("image_key", F.sha2("image_bytes", 256), _address()))
        .withColumn(
            "cheap_key",
            F.coalesce("image_key", F.when(F.col("image_uri").isNotNull(), _address())),
        )
        .withColumn(
            "storable",
            F.coalesce(F.col("image_key"), F.col("updated_at").cast(StringType())).isNotNull()
            | F.col("image_bytes").isNotNull(),
        )
    )
    return frame.select(*PHOTO_COLUMNS)


def _refuse_empty_files(spark: SparkSession, folders: str) -> None:
    """Refuse files without a byte, as a full disk leaves them: Spark passes over them silently."""
    context = spark.sparkContext
    assert context._jvm is not None  # noqa: S101
    pattern = context._jvm.org.apache.hadoop.fs.Path(f"{folders}/[!._]*.parquet")
    for file in pattern.getFileSystem(context._jsc.hadoopConfiguration()).globStatus(pattern) or ():
        if file.getLen() == 0 and file.isFile():
            raise DataContractError(f"{file.getPath().toString()}: is empty, so rows are missing")


def _problem() -> Column:
    uri, data = F.col("image_uri").isNotNull(), F.col("image_bytes").isNotNull()
    return F.when(uri & data, F.lit(RejectReason.AMBIGUOUS_SOURCE.value)).when(
        ~uri & ~data, F.lit(RejectReason.NO_PHOTO.value)
    )


def _address() -> Column:
    when = F.coalesce(F.col("updated_at").cast(TimestampType()).cast(StringType()), F.lit(""))
    return F.sha2(F.concat_ws("\n", F.col("image_uri"), when), 256)


def describe_data(photos: DataFrame, manifest: str, ds: str | None) -> dict[str, Any]:
    """A fingerprint of what a job reads, in one pass over the small columns.

    `image_bytes` are read only where a row has neither an `image_key` nor an `image_uri`.

    Args:
        photos: As `read_photos` gives, all or some of its rows.
        manifest: Where they are from.
        ds: Which partition, or None for all.

    Returns:
        `manifest`, `ds`, `rows`, and `digest`: 32 hexadecimal digits that depend on listings, order
        within them, keys, labels and splits, but not on the order of rows or files.
    """

    def count_and_sum(rows: DataFrame, key: str) -> Any:
        numbers = F.conv(F.substring(_row_digest(key), 1, _HEX_DIGITS), 16, 10)
        return rows.agg(
            F.count("*").alias("rows"),
            F.count(key).alias("keys"),
            F.sum(F.when(F.col(key).isNotNull(), numbers.cast("decimal(38,0)"))).alias("sum"),
        ).first()

    cheap = count_and_sum(photos, "cheap_key")
    total = int(cheap["sum"] or 0)
    if cheap["keys"] < cheap["rows"]:
        total += int(count_and_sum(photos.where("cheap_key is null"), "photo_key")["sum"])
    return _description(manifest, ds, cheap["rows"], total)


def _row_digest(key: str) -> Column:
    columns = [F.coalesce(F.col(name).cast(StringType()), F.lit(_NULL)) for name in (*_ROW, key)]
    return F.sha2(F.concat_ws("\n", *columns), 256)


def describe_rows(
    rows: Iterable[Mapping[str, Any]], manifest: str, ds: str | None
) -> dict[str, Any]:
    """What `describe_data` will say of rows that are being written: same rows, same digest.

    Args:
        rows: The manifest's columns; without `updated_at`.
        manifest: Where they go.
        ds: Which partition.
    """
    count = total = 0
    for row in rows:
        key = row["image_key"] or hashlib.sha256(f"{row['image_uri']}\n".encode()).hexdigest()
        values = [*(row[name] for name in _ROW), key]
        text = "\n".join(_NULL if value is None else str(value) for value in values)
        total += int(hashlib.sha256(text.encode()).hexdigest()[:_HEX_DIGITS], 16)
        count += 1
    return _description(manifest, ds, count, total)


def _description(manifest: str, ds: str | None, rows: int, total: int) -> dict[str, Any]:
    digest = hashlib.sha256(f"{rows} {total}".encode()).hexdigest()[:_DIGEST_DIGITS]
    return {"manifest": without_passwords(manifest), "ds": ds, "rows": rows, "digest": digest}
