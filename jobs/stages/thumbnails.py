"""Thumbnails of listings for pages, read on the executors as any photo is."""

import io
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import pyarrow as pa
from PIL import Image, ImageFilter
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.stages.small_photos import load_squares
from seer_model.photos.limits import PhotoLimits

__all__ = ["Chosen", "read_chosen", "read_thumbnails"]

_SIDE = 96
_QUALITY = 80
_BLUR = 12

Chosen = tuple[str, int]
"""A photo: its listing and `image_index`."""


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
    source = F.struct("image_index", "image_uri", "image_bytes")
    first = (
        photos.where(F.col("listing_id").isin(list(listing_ids)) & F.col("problem").isNull())
        .groupBy("listing_id")
        .agg(F.min_by(source, "image_index").alias("source"))
        .select("listing_id", "source.*", F.lit(False).alias("blurred"))
    )
    return {listing: photo for (listing, _), photo in _read(first, limits).items()}


def read_chosen(
    photos: DataFrame, chosen: Sequence[Chosen], blurred: Sequence[Chosen], limits: PhotoLimits
) -> dict[Chosen, bytes]:
    """Return a small square JPEG of each chosen photo.

    Args:
        photos: What `jobs.stages.manifest.read_photos` returns.
        chosen: Some dozens of photos.
        blurred: Those of them of which no more than colours leaves the executors.
        limits: Limits on photos.

    Returns:
        By photo; without those that cannot be read.
    """
    if not chosen:
        return {}
    hidden = set(blurred)
    kinds = "listing_id string, image_index int, blurred boolean"
    wanted = photos.sparkSession.createDataFrame(
        [(*each, each in hidden) for each in chosen], kinds
    )
    which = ["listing_id", "image_index"]
    found = photos.where(F.col("problem").isNull()).join(F.broadcast(wanted), which)
    return _read(found.dropDuplicates(which), limits)


def _read(photos: DataFrame, limits: PhotoLimits) -> dict[Chosen, bytes]:
    """JPEGs of photos with listing_id, image_index, image_uri, image_bytes and blurred."""
    columns = ("listing_id", "image_index", "image_uri", "image_bytes", "blurred")
    rows = (
        photos.select(*columns)
        .coalesce(1)
        .mapInArrow(
            partial(_thumbnails, limits), "listing_id string, image_index int, photo binary"
        )
    )
    return {(row["listing_id"], row["image_index"]): bytes(row["photo"]) for row in rows.collect()}


def _thumbnails(limits: PhotoLimits, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for row, pixels in load_squares(batches, _SIDE, limits):
        image = Image.fromarray(pixels)
        if row["blurred"]:
            image = image.filter(ImageFilter.GaussianBlur(_BLUR))
        yield pa.record_batch(
            {
                "listing_id": [row["listing_id"]],
                "image_index": pa.array([row["image_index"]], pa.int32()),
                "photo": [_as_jpeg(image)],
            }
        )


def _as_jpeg(image: Image.Image) -> bytes:
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=_QUALITY)
    return jpeg.getvalue()
