"""Embedding on Spark: every photo of a manifest to its vector, from the store where it has one."""

import logging
import math
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.embedding_store import append_to_store, backbone_folder, hold_store, read_store
from jobs.progress import show_progress
from jobs.session import local_uri
from jobs.worker import is_retry, load_embedder, task_device
from seer_model.embedder import EmbeddedPhoto
from seer_model.photo_source import PhotoSource
from seer_model.photos import PhotoLimits

__all__ = ["EmbeddedPhotos", "embed_photos", "scratch_folder"]

log = logging.getLogger(__name__)

_PHOTOS_PER_TASK = 1024
_KEPT: pa.Schema = pa.schema(
    [
        ("listing_id", pa.string()),
        ("image_index", pa.int32()),
        ("category_id", pa.string()),
        ("split", pa.string()),
        ("photo_key", pa.string()),
        ("storable", pa.bool_()),
    ]
)
_ADDED: pa.Schema = pa.schema(
    [("vector", pa.binary()), ("reject_reason", pa.string()), ("device", pa.string())]
)
_FRESH: pa.Schema = pa.schema([*_KEPT, *_ADDED])


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
    photos: DataFrame,
    model: str,
    digest: str,
    store: Path | None,
    work: Path,
    limits: PhotoLimits,
) -> EmbeddedPhotos:
    """Embed the photos that the store does not know, and add them to it.

    What the store knows is read when the frame is: see `despite_damage`.

    Args:
        photos: As `jobs.manifest.read_photos` gives.
        model: Name of the model sent by `ship_model`.
        digest: The backbone's digest.
        store: The embedding store, which this run holds, or None to keep nothing.
        work: A folder of this run, overwritten: fresh vectors are written here once, so that no
            later stage or retry decodes a photo again.
        limits: Limits on photos.
    """
    spark = photos.sparkSession
    no_source = F.col("problem").isNotNull()
    todo = readable = photos.where(~no_source)
    settled = _vectors(photos.where(no_source), F.lit(None).cast("binary"), F.col("problem"))
    if store is not None and backbone_folder(store, digest).is_dir():
        known = read_store(spark, store, digest)
        todo = readable.join(known.select("photo_key"), "photo_key", "left_anti")
        found = readable.join(known, "photo_key")
        settled = settled.union(_vectors(found, F.col("vector"), F.col("reject_reason")))
    count = todo.count()
    log.info("%d photos to embed", count)
    if not count:
        return EmbeddedPhotos(settled, 0, {})
    tasks = max(spark.sparkContext.defaultParallelism, math.ceil(count / _PHOTOS_PER_TASK))
    with show_progress(spark, "embedding photos"):
        (
            todo.select(*_KEPT.names, "image_uri", "image_bytes")
            .repartition(tasks)
            .mapInArrow(_embedding(model, limits), from_arrow_schema(_FRESH))
            .write.mode("overwrite")
            .parquet(local_uri(work))
        )
    fresh = spark.read.parquet(local_uri(work))
    devices = {row["device"]: row["count"] for row in fresh.groupBy("device").count().collect()}
    if store is not None:
        append_to_store(fresh, store, digest)
    fresh = _vectors(fresh, F.col("vector"), F.col("reject_reason"))
    return EmbeddedPhotos(settled.union(fresh), count, devices)


def _vectors(photos: DataFrame, vector: Column, reject_reason: Column) -> DataFrame:
    """The columns of `EmbeddedPhotos.photos`."""
    named = (vector.alias("vector"), reject_reason.alias("reject_reason"))
    return photos.select("listing_id", "image_index", "category_id", "split", *named)


@contextmanager
def scratch_folder(store: Path | None) -> Iterator[Path]:
    """A folder that is gone when the block ends, in the store, or else on this machine alone.

    The store is held until then. Executors on other machines write to the folder, and so need a
    store on a file system that all share.
    """
    with (
        hold_store(store, exclusive=False),
        tempfile.TemporaryDirectory(prefix="_scratch-", dir=store) as folder,
    ):
        yield Path(folder)


def _embedding(
    model: str, limits: PhotoLimits
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What a task does with its photos; one batch of Arrow flows into the next."""

    def embed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        device = task_device()
        embedder = load_embedder(model, device.torch_name, limits)
        label = f"{device.label} ({embedder.runtime.name})"
        under_way: deque[pa.RecordBatch] = deque()

        def sources() -> Iterator[PhotoSource]:
            for batch in batches:
                if batch.num_rows:
                    under_way.append(batch.select(_KEPT.names))
                uris, data = batch.column("image_uri"), batch.column("image_bytes")
                for row in range(batch.num_rows):
                    yield PhotoSource(uris[row].as_py(), data[row].as_py())

        photos: list[EmbeddedPhoto] = []
        for photo in embedder.embed(sources(), apart=is_retry()):
            photos.append(photo)
            if len(photos) == under_way[0].num_rows:
                yield _fresh(under_way.popleft(), photos, label)
                photos = []

    return embed


def _fresh(batch: pa.RecordBatch, photos: list[EmbeddedPhoto], device: str) -> pa.RecordBatch:
    vectors = [None if photo.vector is None else photo.vector.tobytes() for photo in photos]
    reasons = [photo.reject_reason for photo in photos]
    added = (vectors, reasons, [device] * len(photos))
    columns = [pa.array(values, kind) for values, kind in zip(added, _ADDED.types, strict=True)]
    return pa.RecordBatch.from_arrays([*batch.columns, *columns], names=_FRESH.names)
