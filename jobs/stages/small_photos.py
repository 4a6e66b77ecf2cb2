"""Read photos as small squares on the executors, as any photo is read."""

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pyarrow as pa

from jobs.stages.worker import is_retry
from schemas.rejects import RejectReason
from seer_model.photos.isolated import IsolatedDecoder
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.loader import PhotoLoader
from seer_model.photos.pixels import Pixels, resize_square
from seer_model.photos.source import PhotoSource
from seer_model.photos.square import load_square

__all__ = ["load_squares"]

_AHEAD = 32


def load_squares(
    batches: Iterable[pa.RecordBatch], side: int, limits: PhotoLimits
) -> Iterator[tuple[dict[str, Any], Pixels]]:
    """Read the photos of a task's rows, in order; without those that cannot be used.

    A photo that crashes the decoder is decoded again in a process of its own, as in `embed_photos`.

    Args:
        batches: With image_uri and image_bytes.
        side: Of the squares, in pixels.
        limits: Limits on photos.

    Yields:
        The row, and its pixels, uint8, (side, side, 3).
    """
    threads = max(1, (os.cpu_count() or 1) // 2)
    square = partial(load_square, size=side, limits=limits)
    with closing(IsolatedDecoder()) as process:

        def decode(source: PhotoSource) -> Pixels:
            found = process.load(square, source) if is_retry() else square(source)
            return resize_square(found.pixels, side)

        with closing(PhotoLoader(decode_threads=threads, limits=limits)) as loader:
            for batch in batches:
                rows = batch.to_pylist()
                sources = [PhotoSource(row["image_uri"], row["image_bytes"]) for row in rows]
                for row, pixels in zip(
                    rows, loader.load(sources, decode, ahead=_AHEAD), strict=True
                ):
                    if not isinstance(pixels, RejectReason):
                        yield row, pixels
