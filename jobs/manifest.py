"""Reading a manifest with Spark: contract first, then one normalised row a photo."""

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StringType, TimestampType

from schemas.errors import DataContractError
from schemas.manifest import check_manifest
from schemas.rejects import RejectReason

__all__ = ["PHOTO_COLUMNS", "read_photos"]

_OPTIONAL = {
    "image_uri": "string",
    "image_bytes": "binary",
    "image_key": "string",
    "category_id": "string",
    "split": "string",
    "updated_at": "timestamp",
}

PHOTO_COLUMNS = (
    "listing_id",
    "image_index",
    "image_uri",
    "image_bytes",
    "photo_key",
    "storable",
    "problem",
    "category_id",
    "split",
)
"""What `read_photos` gives. `photo_key`: what a photo's embedding is stored under. `storable`:
whether that key changes when the photo does. `problem`: why there is nothing to read, or null."""


def read_photos(spark: SparkSession, manifest: str, ds: str | None = None) -> DataFrame:
    """The photos of a manifest, or of one of its partitions.

    The key of a photo is its `image_key`; without one the SHA-256 of `image_bytes`, or else the
    SHA-256 of `image_uri` and `updated_at`. A URI without `updated_at` gets a key too, but as the
    photo behind it may change unseen, its embedding is not kept in a store.

    Returns:
        `PHOTO_COLUMNS`, a row a photo; rows without a `listing_id` are still among them.

    Raises:
        DataContractError: The partition is missing, or a column is missing or of the wrong type.
    """
    path = manifest if ds is None else f"{manifest.rstrip('/')}/ds={ds}"
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
        raise DataContractError(f"{path}: a file in it is no Parquet, or damaged") from error
    check_manifest(to_arrow_schema(frame.schema, timezone="UTC"), path)
    for name, kind in _OPTIONAL.items():
        if name not in frame.columns:
            frame = frame.withColumn(name, F.lit(None).cast(kind))
    frame = (
        frame.withColumn("image_index", F.col("image_index").try_cast("int"))
        .withColumn("image_key", F.nullif(F.col("image_key"), F.lit("")))
        .withColumn("problem", _problem())
        .withColumn("photo_key", _photo_key())
        .withColumn(
            "storable",
            F.coalesce(F.col("image_key"), F.col("updated_at").cast(StringType())).isNotNull()
            | F.col("image_bytes").isNotNull(),
        )
    )
    return frame.select(*PHOTO_COLUMNS)


def _problem() -> Column:
    uri, data = F.col("image_uri").isNotNull(), F.col("image_bytes").isNotNull()
    return F.when(uri & data, F.lit(RejectReason.AMBIGUOUS_SOURCE.value)).when(
        ~uri & ~data, F.lit(RejectReason.NO_PHOTO.value)
    )


def _photo_key() -> Column:
    when = F.coalesce(F.col("updated_at").cast(TimestampType()).cast(StringType()), F.lit(""))
    address = F.sha2(F.concat_ws("\n", F.col("image_uri"), when), 256)
    return F.coalesce(F.col("image_key"), F.sha2(F.col("image_bytes"), 256), address)
