"""Embed the photos of a manifest on Spark; the embedding store spares those it has."""

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import from_arrow_schema, from_arrow_type

from jobs.command.folders import Folder
from jobs.command.progress import show_progress
from jobs.command.session import default_parallelism, parquet_reader
from jobs.stages.photo_count import PhotoCount, show_photos
from jobs.stages.signals import NOTHING, SignalReading, as_colours, as_hashes, as_text
from jobs.stages.store.base import EmbeddingStore
from jobs.stages.task_resources import embedding_resources
from jobs.stages.worker import is_retry, load_embedder, task_device
from schemas.embeddings import EMBEDDINGS, Signal
from schemas.rejects import RejectReason
from seer_model.backbones.embedder import EmbeddedPhoto
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.source import PhotoSource

__all__ = ["EmbeddedPhotos", "embed_photos"]

log = logging.getLogger(__name__)

_PHOTOS_PER_TASK = 1024
# Many photos get longer tasks rather than more: each writes a file.
_MOST_PHOTOS_PER_TASK = 8192
_TASKS = 10_000
# Files are complete and in place as soon as their task is, rather than at the end of the job.
_COMMIT_BY_TASK = ("mapreduce.fileoutputcommitter.algorithm.version", "2")
_INPUT: pa.Schema = pa.schema(
    [
        ("listing_id", pa.string()),
        ("image_index", pa.int32()),
        ("category_id", pa.string()),
        ("split", pa.string()),
        ("photo_key", pa.string()),
        ("keyed_by_content", pa.bool_()),
        ("storable", pa.bool_()),
    ]
)
_SOURCE = ("image_uri", "image_bytes", "image_key")
_ADDED: pa.Schema = pa.schema(
    [
        *(EMBEDDINGS.field(name) for name in ("vector", "reject_reason", *Signal)),
        ("device", pa.string()),
    ]
)
_OUTPUT: pa.Schema = pa.schema([*_INPUT, *_ADDED])
_RESULT = ("listing_id", "image_index", "category_id", "split", "vector", "reject_reason")
_SIGNAL_TYPES = {signal.value: from_arrow_type(EMBEDDINGS.field(signal).type) for signal in Signal}


@dataclass(frozen=True)
class EmbeddedPhotos:
    """Photos with their embeddings.

    Attributes:
        photos: listing_id, image_index, category_id, split, and either vector (little-endian
            float16) or reject_reason; the other is null. And the signals that were asked for.
        embedded: Number of photos that this run read and embedded; the others came from the store
            or had nothing to read.
        devices: Photos embedded by device.
        unread: Photos by reject reason, of those reasons that are `unread`.
    """

    photos: DataFrame
    embedded: int
    devices: dict[str, int]
    unread: dict[str, int]


def embed_photos(
    photos: DataFrame,
    model: str,
    store: EmbeddingStore,
    work: Folder,
    limits: PhotoLimits,
    signals: SignalReading = NOTHING,
) -> EmbeddedPhotos:
    """Embed the photos that the store does not have, and add them to it.

    Fresh embeddings are written to files before anything is done with them, so that no later stage
    or retry decodes a photo again: to the store's pending ones where it keeps any, and so also for
    the next run if this one is killed.

    Stored embeddings are read when the result is: call this in one of `store.attempts`.

    Args:
        photos: What `jobs.stages.manifest.read_photos` returns.
        model: Name of the model, from `ship_model`.
        store: The backbone's store.
        work: Scratch folder of this run, overwritten.
        limits: Limits on photos.
        signals: What else to read of the photos; one that the store lacks it of is read again.
    """
    spark = photos.sparkSession
    store.recover(spark)
    rejected = F.col("problem").isNotNull()
    wanted = [signal.value for signal in signals.made_by]
    nothing = {name: F.lit(None).cast(_SIGNAL_TYPES[name]) for name in wanted}
    ready = (
        photos.where(rejected)
        .withColumns(
            {"vector": F.lit(None).cast("binary"), "reject_reason": F.col("problem"), **nothing}
        )
        .select(*_RESULT, *wanted)
    )
    missing = photos.where(~rejected)
    if (stored := store.read(spark, signals.made_by)) is not None:
        # A reject reason is true of bytes; an address may have others by now.
        applies = (F.col("embedded") | F.col("keyed_by_content")) & F.col("complete")
        found = missing.join(stored, "photo_key").where(applies)
        known = stored.select(F.col("photo_key").alias("known"), "embedded", "complete")
        same = F.col("photo_key") == F.col("known")
        missing = missing.join(known, same & applies, "left_anti")
        ready = ready.union(found.select(*_RESULT, *wanted))
    with show_progress(spark, "looking photos up in the store"):
        count = missing.count()
    log.info("%d photos to embed", count)
    if not count:
        return EmbeddedPhotos(ready, 0, {}, {})
    folder = store.new_pending(work)
    fresh = _embed(missing, count, model, folder, work, limits, signals)
    devices, reasons = Counter[str](), Counter[str]()
    for device, reason, rows in fresh.groupBy("device", "reject_reason").count().collect():
        devices[device] += rows
        reasons[reason] += rows
    # The store has embeddings and permanent reasons only, so every unread photo is among these.
    unread = {reason.value: reasons[reason] for reason in RejectReason if reason.unread}
    store.append(fresh)
    store.discard_at_end(folder)
    ready = ready.union(fresh.select(*_RESULT, *wanted))
    return EmbeddedPhotos(ready, count, dict(devices), {k: n for k, n in unread.items() if n})


def _embed(
    photos: DataFrame,
    count: int,
    model: str,
    folder: Folder,
    work: Folder,
    limits: PhotoLimits,
    signals: SignalReading,
) -> DataFrame:
    """Embed every photo once, into Parquet files in `folder`."""
    spark = photos.sparkSession
    photos_per_task = min(max(_PHOTOS_PER_TASK, count // _TASKS), _MOST_PHOTOS_PER_TASK)
    tasks = max(default_parallelism(spark), math.ceil(count / photos_per_task))
    counts = work.path and work.path / "counts"
    with show_photos(spark, "embedding photos", count, counts) as done:
        (
            photos.select(*_INPUT.names, *_SOURCE)
            .repartition(tasks)
            .mapInArrow(
                _task(model, limits, signals, done),
                from_arrow_schema(_OUTPUT),
                profile=embedding_resources(spark),
            )
            .write.option(*_COMMIT_BY_TASK)
            .mode("append")
            .parquet(folder.uri)
        )
    return parquet_reader(spark).parquet(folder.uri)


def _task(
    model: str, limits: PhotoLimits, signals: SignalReading, done: PhotoCount
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What a task does with its batches. The embedder prefetches across their borders."""

    def embed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        device = task_device()
        embedder = load_embedder(model, device.torch_name, limits)
        label = f"{device.label} ({embedder.runtime.name})"
        in_flight: deque[pa.RecordBatch] = deque()

        def sources() -> Iterator[PhotoSource]:
            for batch in batches:
                if batch.num_rows:
                    in_flight.append(batch.select(_INPUT.names))
                source = [batch.column(name) for name in _SOURCE]
                for row in range(batch.num_rows):
                    yield PhotoSource(*(column[row].as_py() for column in source))

        photos: list[EmbeddedPhoto] = []
        embedded = embedder.embed(
            sources(),
            isolated=is_retry(),
            hashed=signals.hashes,
            coloured=signals.colours,
            reader=signals.reader(),
        )
        for photo in done.counted(embedded):
            photos.append(photo)
            if len(photos) == in_flight[0].num_rows:
                yield _output(in_flight.popleft(), photos, label, signals)
                photos = []

    return embed


def _output(
    batch: pa.RecordBatch, photos: list[EmbeddedPhoto], device: str, signals: SignalReading
) -> pa.RecordBatch:
    vectors = [None if photo.vector is None else photo.vector.tobytes() for photo in photos]
    reasons = [photo.reject_reason for photo in photos]
    hashes = [as_hashes(photo, signals) for photo in photos]
    text = [as_text(photo, signals) for photo in photos]
    colours = [as_colours(photo, signals) for photo in photos]
    added = (vectors, reasons, hashes, text, colours, [device] * len(photos))
    columns = [pa.array(values, kind) for values, kind in zip(added, _ADDED.types, strict=True)]
    return pa.RecordBatch.from_arrays([*batch.columns, *columns], names=_OUTPUT.names)
