"""Read a manifest with Spark: check its contract, and return one normalised row a photo."""

import logging
from collections import defaultdict
from datetime import date
from functools import reduce

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import to_arrow_schema

from jobs.command.locations import Table
from jobs.command.session import parquet_reader
from jobs.command.spark_errors import root_cause
from jobs.stages.manifest_files import ManifestFile, list_files, list_partitions
from jobs.tables.opening import read_table
from schemas.errors import DataContractError
from schemas.manifest import check_manifest
from schemas.rejects import RejectReason

__all__ = ["PHOTO_COLUMNS", "list_days", "read_days", "read_photos"]

log = logging.getLogger(__name__)

_TYPES = {
    "listing_id": "string",
    "image_index": "bigint",
    "image_uri": "string",
    "image_bytes": "binary",
    "image_key": "string",
    "category_id": "string",
    "split": "string",
    "slices": "map<string,string>",
    "attributes": "map<string,string>",
    "concepts": "map<string,boolean>",
    "updated_at": "timestamp",
}
_NANOSECONDS = "bigint"

PHOTO_COLUMNS = (
    "listing_id",
    "image_index",
    "image_uri",
    "image_bytes",
    "image_key",
    "photo_key",
    "cheap_key",
    "keyed_by_content",
    "storable",
    "problem",
    "category_id",
    "split",
    "slices",
    "attributes",
    "concepts",
)
"""The columns of `read_photos`.

image_key: the SHA-256 that the photo must have, in lower case, or null. photo_key: key of the
photo's embedding in the store. cheap_key: the same, or null where computing it takes reading
`image_bytes`. keyed_by_content: whether the key is the photo's SHA-256. storable: whether the key
changes when the photo does. problem: reject reason of a row with nothing to read, or null.
"""


def read_photos(spark: SparkSession, manifest: str | Table, ds: str | None = None) -> DataFrame:
    """Read the photos of a manifest, or of one of its partitions.

    A table is read as of now, whatever is written to it while the frame is used.

    A photo's key is its `image_key`, or else the SHA-256 of `image_bytes`, or else the SHA-256 of
    `image_uri` and `updated_at`. A URI without `updated_at` has a key, too, but the photo behind it
    may change unnoticed, so its embedding is not stored.

    Every file of a folder has columns of its own: one that a file lacks is null in its rows.

    Returns:
        `PHOTO_COLUMNS`, one row a photo; includes rows without a `listing_id`.

    Raises:
        DataContractError: The partition is missing or has no row, a file is empty, damaged or not
            Parquet, or a column of it is missing or has the wrong type.
        SettingsError: Spark cannot open the manifest.
    """
    if isinstance(manifest, Table):
        frame = _read_table(spark, manifest, ds)
    else:
        folder = manifest if ds is None else f"{manifest.rstrip('/')}/ds={ds}"
        frame = _read(spark, folder, list_files(spark, folder))
    frame = frame.withColumns(
        {
            "image_index": F.col("image_index").try_cast("int"),
            "image_key": F.nullif(F.lower("image_key"), F.lit("")),
        }
    )
    keyed_by_content = F.col("image_key").isNotNull() | F.col("image_bytes").isNotNull()
    frame = frame.withColumns(
        {
            "problem": _problem(),
            "photo_key": F.coalesce("image_key", F.sha2("image_bytes", 256), _uri_key()),
            "cheap_key": F.coalesce(
                "image_key", F.when(F.col("image_uri").isNotNull(), _uri_key())
            ),
            "keyed_by_content": keyed_by_content,
            "storable": keyed_by_content | F.col("updated_at").isNotNull(),
        }
    )
    return frame.select(*PHOTO_COLUMNS)


def read_days(spark: SparkSession, manifest: str | Table) -> DataFrame:
    """Read the photos of all days of a manifest, but for days of a folder that break the contract.

    Returns:
        `PHOTO_COLUMNS`, one row a photo.

    Raises:
        DataContractError: There is no such manifest, or no day keeps the contract.
        SettingsError: Spark cannot open it.
    """
    if isinstance(manifest, Table):
        return read_photos(spark, manifest)
    days = []
    for day in list_days(spark, manifest):
        try:
            days.append(read_photos(spark, manifest, day.isoformat()))
        except DataContractError as error:
            log.warning("a day is left out: %s", error)
    if not days:
        raise DataContractError(f"{manifest}: no day can be read")
    return reduce(DataFrame.unionByName, days)


def list_days(spark: SparkSession, manifest: str | Table) -> list[date]:
    """The days of which a manifest has a partition.

    Raises:
        DataContractError: There is no such manifest, or a partition's `ds` is not a date.
        SettingsError: Spark cannot open it.
    """
    if not isinstance(manifest, Table):
        return [_day(name, manifest) for name in list_partitions(spark, manifest)]
    frame = read_table(spark, manifest)
    if frame is None or "ds" not in frame.columns:
        missing = "no such manifest" if frame is None else "column ds is missing"
        raise DataContractError(f"{manifest}: {missing}")
    names = (f"ds={row['ds']}" for row in frame.select("ds").distinct().collect())
    return sorted(_day(name, manifest) for name in names)


def _day(name: str, manifest: str) -> date:
    try:
        day = date.fromisoformat(name.removeprefix("ds="))
    except ValueError:
        day = None
    if day is None or name != f"ds={day}":
        raise DataContractError(f"{manifest}: {name} is not a partition ds=YYYY-MM-DD")
    return day


def _read_table(spark: SparkSession, name: Table, ds: str | None) -> DataFrame:
    frame = read_table(spark, name)
    if frame is None:
        raise DataContractError(f"{name}: no such manifest")
    if ds is not None:
        frame = _of_day(frame, name, ds)
    known = [column for column in frame.columns if column in _TYPES]
    check_manifest(to_arrow_schema(frame.select(*known).schema), str(name))
    if frame.isEmpty():
        where = name if ds is None else f"{name} ds={ds}"
        raise DataContractError(f"{where}: the manifest has no row there; write it again")
    return _normalise(frame)


def _of_day(frame: DataFrame, name: Table, ds: str) -> DataFrame:
    """The rows of a day. The column is compared as it is, or Spark would read every partition."""
    kind = dict(frame.dtypes).get("ds")
    if kind not in ("date", "string"):
        found = "is missing" if kind is None else f"is {kind}"
        raise DataContractError(f"{name}: column ds {found}, expected date or string")
    return frame.where(F.col("ds") == F.lit(ds).cast(kind))


def _read(spark: SparkSession, folder: str, files: list[ManifestFile]) -> DataFrame:
    """Read files of any layouts as one frame, with the columns and types of `_TYPES`."""
    alike = defaultdict(list)
    for file in files:
        partitions = _partition_names(file.path)
        alike[_layout(file.columns, partitions), partitions].append(file.path)
    try:
        frames = [
            _normalise(
                parquet_reader(spark)
                .option("basePath", folder)
                .schema(", ".join(f"{name} {kind}" for name, kind in layout))
                .parquet(*paths)
            )
            for (layout, _), paths in alike.items()
        ]
    except (PySparkException, Py4JJavaError) as error:
        raise DataContractError(f"{folder}: Spark cannot open it: {root_cause(error)}") from error
    return reduce(DataFrame.union, frames)


def _layout(columns: pa.Schema, partitions: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Names and types of the columns to ask Spark for: those of the file and of its partitions."""
    kinds = dict(zip(columns.names, columns.types, strict=True))
    asked = {
        name: kind
        for name, kind in _TYPES.items()
        if kinds.get(name, pa.null()) != pa.null() or name in partitions
    }
    updated_at = kinds.get("updated_at")
    if updated_at is not None and pa.types.is_timestamp(updated_at) and updated_at.unit == "ns":
        asked["updated_at"] = _NANOSECONDS
    return tuple(asked.items())


def _partition_names(path: str) -> tuple[str, ...]:
    """Names of Hive partitions, which must be the same for all files that Spark reads at once."""
    return tuple(part.partition("=")[0] for part in path.split("/")[:-1] if "=" in part)


def _normalise(frame: DataFrame) -> DataFrame:
    if dict(frame.dtypes).get("updated_at") == _NANOSECONDS:
        frame = frame.withColumn("updated_at", F.timestamp_micros(F.expr("updated_at div 1000")))
    return frame.select(
        *(
            (F.col(name) if name in frame.columns else F.lit(None)).cast(kind).alias(name)
            for name, kind in _TYPES.items()
        )
    )


def _problem() -> Column:
    uri, data = F.col("image_uri").isNotNull(), F.col("image_bytes").isNotNull()
    return F.when(uri & data, F.lit(RejectReason.AMBIGUOUS_SOURCE.value)).when(
        ~uri & ~data, F.lit(RejectReason.NO_PHOTO.value)
    )


def _uri_key() -> Column:
    # A cast of `updated_at` would write it in the session's time zone: a photo's key would be
    # another in each zone, and the same at two times in the hour that autumn repeats.
    utc = "timestamp_ntz'1970-01-01' + interval '0.000001' second * unix_micros(updated_at)"
    when = F.coalesce(F.expr(f"cast({utc} as string)"), F.lit(""))
    return F.sha2(F.concat_ws("\n", F.col("image_uri"), when), 256)
