"""New kinds of goods: listings that are like each other, among those that no class is like."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.cluster import AgglomerativeClustering
from sklearn.preprocessing import normalize

from seer_model.categorizer.familiarity import Familiarity

__all__ = ["Clustered", "cluster_listings"]

Floats = npt.NDArray[np.float32]

_APART = 0.6
"""Mean cosine distance at which two groups of listings are two clusters."""


class Clustered(NamedTuple):
    """Listings by cluster.

    Attributes:
        cluster: int64, (listings,), from 1, the largest first; 0 for a listing in none.
        distance: float32, (listings,), from the middle of its cluster: 1 - cosine; NaN for none.
    """

    cluster: npt.NDArray[np.int64]
    distance: Floats


def cluster_listings(features: Floats, familiarity: Familiarity, smallest: int) -> Clustered:
    """Cluster listings by the direction in which they differ from the known goods.

    Agglomerative clustering with average linkage, of cosine distances from the mean of the known
    goods, in coordinates in which the listings of a known class spread equally in all directions.
    How far out a listing lies says more of its photos than of the goods. Memory and time grow with
    the square of the listings: 4,000 take 130 MB.

    Args:
        features: float32, (listings, width).
        familiarity: The model's.
        smallest: Fewest listings of a cluster.
    """
    count = len(features)
    cluster, distance = np.zeros(count, np.int64), np.full(count, np.nan, np.float32)
    if count < 2:
        return Clustered(cluster, distance)
    directions = normalize(familiarity.whiten(features).astype(np.float64))
    groups = AgglomerativeClustering(
        n_clusters=None, metric="cosine", linkage="average", distance_threshold=_APART
    ).fit_predict(directions)
    sizes = np.bincount(groups)
    largest = np.argsort(-sizes, kind="stable")
    for number, group in enumerate(largest[sizes[largest] >= smallest], start=1):
        members = groups == group
        middle = normalize(directions[members].mean(axis=0)[None])[0]
        cluster[members] = number
        distance[members] = 1 - directions[members] @ middle
    return Clustered(cluster, distance)
