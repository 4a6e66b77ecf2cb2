"""Embedded photos of labelled listings, and their listings."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.scoring import LISTINGS, fuse_photos

__all__ = [
    "LISTINGS_AT_ONCE",
    "LabelledPhotos",
    "class_positions",
    "in_parts",
    "listing_bounds",
    "slice_names",
]

LISTINGS_AT_ONCE = 16_384
"""Bounds the memory of scores in float64, and of photos as Python objects."""


class LabelledPhotos(NamedTuple):
    """Embedded photos of labelled listings, in any order; one entry per photo.

    Attributes:
        listing_ids: The photo's listing.
        labels: The listing's category.
        vectors: Embeddings, float16, (photos, width).
        slices: The listing's slices, maps of strings, null where it has none; None if none has any.
        chosen: bool, (photos,): whether the listing was labelled because the model was unsure of
            it, and so says nothing of how often the model is right; None if none was.
    """

    listing_ids: Sequence[str]
    labels: Sequence[str]
    vectors: npt.NDArray[np.float16]
    slices: pa.Array | None = None
    chosen: npt.NDArray[np.bool_] | None = None

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
            None if self.chosen is None else self.chosen[rows],
        )

    def part(self, rows: slice) -> "LabelledPhotos":
        """Photos that follow each other."""
        return LabelledPhotos(
            self.listing_ids[rows],
            self.labels[rows],
            self.vectors[rows],
            None if self.slices is None else self.slices[rows],
            None if self.chosen is None else self.chosen[rows],
        )

    def listing_labels(self) -> list[str]:
        """The category of each listing, of photos grouped by listing."""
        return [self.labels[first] for first in listing_bounds(self.listing_ids)[:-1]]

    def listing_slices(self) -> list[dict[str, str]]:
        """The slices of each listing, of photos grouped by listing; none where none has any."""
        firsts = pa.array(listing_bounds(self.listing_ids)[:-1])
        slices = self.slices
        return [] if slices is None else [dict(s or ()) for s in slices.take(firsts).to_pylist()]

    def fused(self) -> npt.NDArray[np.float32]:
        """Features of each listing, float32, (listings, width), of photos grouped by listing."""
        return fuse_photos(self.vectors, np.diff(listing_bounds(self.listing_ids)))

    def listings(self) -> pa.RecordBatch:
        """The listings as `score_listings` takes them, of photos grouped by listing."""
        rows = [
            {
                "listing_id": self.listing_ids[first],
                "photos": [
                    {"image_index": i, "vector": vector.tobytes(), "reject_reason": None}
                    for i, vector in enumerate(self.vectors[first:last])
                ],
            }
            for first, last in pairwise(listing_bounds(self.listing_ids))
        ]
        return pa.RecordBatch.from_pylist(rows, schema=LISTINGS)


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
        yield photos.part(slice(bounds[first], bounds[last]))


def slice_names(slices: pa.Array | None) -> str:
    """The names of all slices, as an error message says which there are."""
    names = [] if slices is None else sorted(pc.unique(slices.keys).to_pylist())
    return f"the slices {', '.join(names)}" if names else "no slices"
