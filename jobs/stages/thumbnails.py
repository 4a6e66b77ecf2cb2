"""Thumbnails of listings for pages, read on the executors as any photo is."""

import io
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import pyarrow as pa
from PIL import Image
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.stages.small_photos import load_squares
from seer_model.photos.limits import PhotoLimits

__all__ = ["read_thumbnails"]

_SIDE = 96
_QUALITY = 80


def read_thumbnails(
    photos: DataFrame, listing_ids: Sequence[str], limits: PhotoLimits
) -> dict[str, bytes]:
    """Return a small square JPEG of each listing's first photo.

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
    for row, pixels in load_squares(batches, _SIDE, limits):
        jpeg = io.BytesIO()
        Image.fromarray(pixels).save(jpeg, "JPEG", quality=_QUALITY)
        yield pa.record_batch({"listing_id": [row["listing_id"]], "photo": [jpeg.getvalue()]})
