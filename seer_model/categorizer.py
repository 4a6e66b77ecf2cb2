"""Photos straight to categories in one process, for the MLflow model and the ad hoc function."""

from collections.abc import Iterable

import pyarrow as pa

from seer_model.bundle import Bundle
from seer_model.embedder import EmbeddedPhoto, PhotoEmbedder
from seer_model.photo_source import PhotoSource
from seer_model.scoring import LISTINGS, score_listings

__all__ = ["Categorizer"]


class Categorizer:
    """A bundle and its backbone on a device.

    Args:
        bundle: The model.
        embedder: Its backbone, ready to run.
    """

    def __init__(self, bundle: Bundle, embedder: PhotoEmbedder) -> None:
        self.bundle = bundle
        self.embedder = embedder

    def categorize(
        self,
        listing_ids: list[str],
        image_indexes: list[int],
        sources: list[PhotoSource],
    ) -> pa.RecordBatch:
        """Categorize listings given photo by photo; all three lists have an entry a photo.

        Returns:
            As `scoring.SCORES`, one row a distinct listing, in the order of first appearance.
        """
        return self.score(listing_ids, image_indexes, self.embedder.embed(sources))

    def score(
        self,
        listing_ids: Iterable[str],
        image_indexes: Iterable[int],
        embedded: Iterable[EmbeddedPhoto],
    ) -> pa.RecordBatch:
        """The same of photos that are embedded already."""
        photos: dict[str, list[dict[str, object]]] = {}
        for listing, index, (vector, reason) in zip(
            listing_ids, image_indexes, embedded, strict=True
        ):
            photos.setdefault(listing, []).append(
                {
                    "image_index": index,
                    "vector": None if vector is None else vector.tobytes(),
                    "reject_reason": reason,
                }
            )
        batch = pa.RecordBatch.from_arrays(
            [
                pa.array(list(photos), pa.string()),
                pa.array(list(photos.values()), LISTINGS.field("photos").type),
            ],
            schema=LISTINGS,
        )
        return score_listings(self.bundle, batch)
