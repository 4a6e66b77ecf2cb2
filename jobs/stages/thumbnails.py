"""Thumbnails of listings for pages, read on the executors as any photo is."""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial

import pyarrow as pa
from PIL import Image
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.stages.worker import is_retry
from schemas.rejects import RejectReason
from seer_model.photos.isolated import IsolatedDecoder
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.loader import PhotoLoader
from seer_model.photos.pixels import load_photo
from seer_model.photos.source import PhotoSource

__all__ = ["read_thumbnails"]

_SIDE = 96
_QUALITY = 80
_AHEAD = 32


def read_thumbnails(
    photos: DataFrame, listing_ids: Sequence[str], limits: PhotoLimits
) -> dict[str, bytes]:
    """Return a small square JPEG of each listing's first photo.

    A photo that crashes the decoder is decoded again in a process of its own, as in `embed_photos`.

    Args:
        photos: What `jobs.stages.manifest.read_photos` returns.
        listing_ids: The listings, some dozens.
        limits: Limits on photos.

    Returns:
        By listing; without those whose first photo cannot be read.
    """
    source = F.struct("image_uri", "image_bytes")
    first = (
        photos.where(F.col("listing_id").isin(list(listing_ids)) & F.col("problem").isNull())
        .groupBy("listing_id")
        .agg(F.min_by(source, "image_index").alias("source"))
        .select("listing_id", "source.*")
        .coalesce(1)
    )
    rows = first.mapInArrow(partial(_thumbnails, limits), "listing_id string, photo binary")
    return {row["listing_id"]: bytes(row["photo"]) for row in rows.collect()}


def _thumbnails(limits: PhotoLimits, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    with closing(IsolatedDecoder(_SIDE, limits)) as process:
        decode = process.load if is_retry() else partial(load_photo, size=_SIDE, limits=limits)
        with closing(PhotoLoader(decode, decode_threads=1, limits=limits)) as loader:
            for batch in batches:
                rows = batch.to_pylist()
                sources = [PhotoSource(row["image_uri"], row["image_bytes"]) for row in rows]
                for row, pixels in zip(rows, loader.load(sources, ahead=_AHEAD), strict=True):
                    if isinstance(pixels, RejectReason):
                        continue
                    jpeg = io.BytesIO()
                    Image.fromarray(pixels).save(jpeg, "JPEG", quality=_QUALITY)
                    found = {"listing_id": [row["listing_id"]], "photo": [jpeg.getvalue()]}
                    yield pa.record_batch(found)
