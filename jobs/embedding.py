"""Embedding on Spark: every photo of a manifest to its vector, from the store where it has one.

A store is a folder of Parquet files under `backbone=DIGEST/run=ID`: every backbone has its own, and
runs that add to it at the same time do not meet (Spark clears the folder that it has written to).
"""

import logging
import math
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.functions import pandas_udf

from jobs.progress import show_progress
from jobs.session import local_uri
from jobs.worker import load_embedder, task_device
from schemas.rejects import RejectReason
from seer_model.photo_source import PhotoSource

__all__ = ["EmbeddedPhotos", "embed_photos", "scratch_folder"]

log = logging.getLogger(__name__)

_PHOTOS_PER_TASK = 512
_RESULT = "vector binary, reject_reason string, device string"


@dataclass(frozen=True)
class EmbeddedPhotos:
    """Photos with their vectors.

    Attributes:
        photos: listing_id, image_index, category_id, split, vector (little-endian float16) and
            reject_reason: one of the two is null.
        embedded: Photos read and embedded by this run; the others came from the store or had
            nothing to read.
        devices: How many of those each device took.
    """

    photos: DataFrame
    embedded: int
    devices: dict[str, int]


def embed_photos(
    photos: DataFrame, model: str, digest: str, store: Path | None, work: Path
) -> EmbeddedPhotos:
    """Embed the photos that the store does not know, and add them to it.

    Args:
        photos: As `jobs.manifest.read_photos` gives.
        model: Name of the model sent by `ship_model`.
        digest: The backbone's digest.
        store: The embedding store, or None to keep nothing.
        work: A folder of this run, empty or absent: fresh vectors are written here once, so that no
            later stage or retry decodes a photo again.
    """
    spark = photos.sparkSession
    known = _read_store(spark, store, digest)
    joined = photos.join(known, "photo_key", "left")
    is_open = F.col("vector").isNull() & F.col("reject_reason").isNull() & F.col("problem").isNull()
    keep = ["listing_id", "image_index", "category_id", "split"]
    todo = joined.where(is_open)
    count = todo.count()
    log.info("%d photos to embed", count)
    tasks = max(spark.sparkContext.defaultParallelism, math.ceil(count / _PHOTOS_PER_TASK))
    embed = _embed_udf(model)
    with show_progress(spark, "embedding photos"):
        (
            todo.repartition(tasks)
            .select(
                *keep, "photo_key", "storable", embed("image_uri", "image_bytes").alias("embedded")
            )
            .select(*keep, "photo_key", "storable", "embedded.*")
            .write.parquet(local_uri(work))
        )
    fresh = spark.read.parquet(local_uri(work))
    devices = {row["device"]: row["count"] for row in fresh.groupBy("device").count().collect()}
    if store is not None and count:
        _append(fresh, store, digest)
    # A row whose source is wrong may carry the key of a photo that the store knows.
    settled = (
        joined.where(~is_open)
        .withColumn("vector", F.when(F.col("problem").isNull(), F.col("vector")))
        .withColumn("reject_reason", F.coalesce("problem", "reject_reason"))
    )
    columns = [*keep, "vector", "reject_reason"]
    return EmbeddedPhotos(settled.select(*columns).union(fresh.select(*columns)), count, devices)


@contextmanager
def scratch_folder(store: Path | None) -> Iterator[Path]:
    """A folder that is gone when the block ends, in the store, or else on this machine alone.

    Executors on other machines write to it, and so need a store on a file system that all share.
    """
    if store is not None:
        store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="_scratch-", dir=store) as folder:
        yield Path(folder)


def _embed_udf(model: str):  # type: ignore[no-untyped-def]
    @pandas_udf(_RESULT)  # type: ignore[call-overload,untyped-decorator]
    def embed(batches: Iterator[tuple[pd.Series, pd.Series]]) -> Iterator[pd.DataFrame]:
        device = task_device()
        embedder = load_embedder(model, device.torch_name)
        for uris, data in batches:
            embedded = embedder.embed(map(PhotoSource, uris, data))
            rows = [
                (None if vector is None else vector.tobytes(), reason, device.label)
                for vector, reason in embedded
            ]
            yield pd.DataFrame(rows, columns=["vector", "reject_reason", "device"])

    return embed


def _folder(store: Path, digest: str) -> Path:
    return store / f"backbone={digest}"


def _read_store(spark: SparkSession, store: Path | None, digest: str) -> DataFrame:
    schema = "image_key string, vector binary, reject_reason string"
    if store is None or not _folder(store, digest).is_dir():
        frame = spark.createDataFrame([], schema)
    else:
        frame = spark.read.schema(schema).parquet(local_uri(_folder(store, digest))).drop("run")
    return frame.withColumnRenamed("image_key", "photo_key").dropDuplicates(["photo_key"])


def _append(fresh: DataFrame, store: Path, digest: str) -> None:
    permanent = [reason.value for reason in RejectReason if reason.permanent]
    lasting = F.col("vector").isNotNull() | F.col("reject_reason").isin(permanent)
    (
        fresh.where(F.col("storable") & lasting)
        .select(
            F.col("photo_key").alias("image_key"),
            F.lit(digest).alias("backbone_digest"),
            "vector",
            "reject_reason",
        )
        .write.parquet(local_uri(_folder(store, digest) / f"run={uuid.uuid4().hex}"))
    )
