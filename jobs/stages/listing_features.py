"""Bring the features of some listings to this process."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame

from jobs.command.folders import Folder
from jobs.stages.embedding import embed_photos
from jobs.stages.spool import Spool
from jobs.stages.store.base import EmbeddingStore
from seer_model.categorizer.scoring import fuse_photos
from seer_model.photos.limits import PhotoLimits

__all__ = ["ListingFeatures", "read_features"]


class ListingFeatures(NamedTuple):
    """Features of listings, by their ids.

    Attributes:
        listing_ids: Sorted; those of which a photo can be read.
        features: float32, (listings, width).
        embedded: How many photos were embedded; the others came from the store.
    """

    listing_ids: list[str]
    features: npt.NDArray[np.float32]
    embedded: int


def read_features(
    photos: DataFrame,
    model: str,
    width: int,
    store: EmbeddingStore,
    scratch: Folder,
    limits: PhotoLimits,
) -> ListingFeatures:
    """Embed the photos that the store lacks, and fuse those of each listing.

    Args:
        photos: What `jobs.stages.manifest.read_photos` returns, of listings that fit into memory.
        model: Name of the model, from `ship_model`.
        width: Of its backbone's features.
        store: The backbone's store.
        scratch: This run's scratch folder.
        limits: Limits on photos.
    """
    for attempt in store.attempts(photos.sparkSession):
        with attempt:
            embedded = embed_photos(photos, model, store, scratch, limits)
            usable = embedded.photos.where("vector is not null").select("listing_id", "vector")
            spool = Spool.write(usable, scratch / "photos")
    table = spool.read("listing_id", "vector").sort_by("listing_id")
    vectors = np.frombuffer(b"".join(table["vector"].to_pylist()), "<f2").reshape(-1, width)
    counts = Counter(table["listing_id"].to_pylist())
    features = fuse_photos(vectors, np.array(list(counts.values()), np.int64))
    return ListingFeatures(list(counts), features, embedded.embedded)
