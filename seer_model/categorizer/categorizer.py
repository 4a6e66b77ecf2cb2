"""From photos to categories in one process, for the MLflow model and the pandas UDF."""

from collections.abc import Iterable

import pyarrow as pa

from seer_model.backbones.embedder import EmbeddedPhoto, PhotoEmbedder
from seer_model.categorizer.bundle import Bundle
from seer_model.categorizer.scoring import LISTINGS, score_listings
from seer_model.photos.source import PhotoSource

__all__ = ["Categorizer"]


class Categorizer:
    """A bundle, with an embedder for its backbone.

    Args:
        bundle: The model.
        embedder: Executes the bundle's backbone.
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
        """Categorize listings from their photos; each list has an entry a photo.

        Returns:
            Of schema `scoring.SCORES`, one row a listing, in the order of first appearance.
        """
        return self.score(listing_ids, image_indexes, self.embedder.embed(sources))

    def score(
        self,
        listing_ids: Iterable[str],
        image_indexes: Iterable[int],
        embedded: Iterable[EmbeddedPhoto],
    ) -> pa.RecordBatch:
        """Categorize listings from the embeddings of their photos, see `categorize`."""
        photos: dict[str, list[dict[str, object]]] = {}
        for listing, index, photo in zip(listing_ids, image_indexes, embedded, strict=True):
            photos.setdefault(listing, []).append(
                {
                    "image_index": index,
                    "vector": None if photo.vector is None else photo.vector.tobytes(),
                    "reject_reason": photo.reject_reason,
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
