"""Embedded photos of labelled listings, and their listings."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from seer_model.categorizer.hierarchy import ClassTree

__all__ = ["LISTINGS_AT_ONCE", "LabelledPhotos", "class_positions", "in_parts", "listing_bounds"]

LISTINGS_AT_ONCE = 16_384
"""Bounds the memory of scores in float64, and of photos as Python objects."""


class LabelledPhotos(NamedTuple):
    """Embedded photos of labelled listings, in any order; one entry per photo.

    Attributes:
        listing_ids: The photo's listing.
        labels: The listing's category.
        vectors: Embeddings, float16, (photos, width).
        slices: The listing's slices, maps of strings, null where it has none; None if none has any.
    """

    listing_ids: Sequence[str]
    labels: Sequence[str]
    vectors: npt.NDArray[np.float16]
    slices: pa.Array | None = None

    def by_listing(self) -> "LabelledPhotos":
        """The same photos, grouped by listing."""
        order = sorted(range(len(self.labels)), key=lambda i: self.listing_ids[i])
        return self.some(np.array(order, np.int64))

    def some(self, rows: npt.NDArray[np.int64]) -> "LabelledPhotos":
        """Some of the photos, in this order."""
        return LabelledPhotos(
            [self.listing_ids[i] for i in rows],
            [self.labels[i] for i in rows],
            self.vectors[rows],
            None if self.slices is None else self.slices.take(pa.array(rows)),
        )


def class_positions(tree: ClassTree, labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """Positions of labels among the classes, int64, (labels,)."""
    return np.array([tree.position[label] for label in labels], np.int64)


def listing_bounds(listing_ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Where the photos of each listing begin, of photos grouped by listing, and the end."""
    new = (i for i, x in enumerate(listing_ids) if i == 0 or x != listing_ids[i - 1])
    return np.array([*new, len(listing_ids)], np.int64)


def in_parts(photos: LabelledPhotos) -> Iterator[LabelledPhotos]:
    """Photos grouped by listing, some thousand listings at a time."""
    bounds = listing_bounds(photos.listing_ids)
    for first in range(0, len(bounds) - 1, LISTINGS_AT_ONCE):
        last = min(first + LISTINGS_AT_ONCE, len(bounds) - 1)
        rows = slice(bounds[first], bounds[last])
        slices = None if photos.slices is None else photos.slices[rows]
        yield LabelledPhotos(
            photos.listing_ids[rows], photos.labels[rows], photos.vectors[rows], slices
        )
