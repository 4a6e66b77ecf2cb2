"""New kinds of goods: listings that are like each other, among those that no class is like."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.cluster import HDBSCAN
from sklearn.preprocessing import normalize

from seer_model.categorizer.familiarity import Familiarity

__all__ = ["Clustered", "cluster_listings"]

Floats = npt.NDArray[np.float32]


_AS_DENSE = 0.5
"""Share of a cluster's density that its loosest listing has."""


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

    HDBSCAN (Campello et al. 2013), whose clusters are the leaves of its tree: the smallest dense
    groups, at any density. Distances are those of directions from the mean of the known goods, in
    coordinates in which the listings of a known class spread equally: how far out a listing lies
    says more of its photos than of the goods. Memory and time grow with the square of the listings:
    4,000 take 0.5 GB, or 1.3 GB if they are a single group.

    Args:
        features: float32, (listings, width).
        familiarity: The model's.
        smallest: Fewest listings of a cluster.
    """
    count = len(features)
    cluster, distance = np.zeros(count, np.int64), np.full(count, np.nan, np.float32)
    if count < smallest:
        return Clustered(cluster, distance)
    directions = normalize(familiarity.whiten(features).astype(np.float64))
    groups = _dense_groups(directions, smallest)
    if (groups < 0).all():
        # A group is what stands apart from another: from its mirror image, if it is the only one.
        mirrored = np.concatenate([directions, -directions])
        groups = _dense_groups(mirrored, smallest)[:count]
    sizes = np.bincount(groups[groups >= 0])
    largest = np.argsort(-sizes, kind="stable")
    for number, group in enumerate(largest[sizes[largest] >= smallest], start=1):
        members = groups == group
        middle = normalize(directions[members].mean(axis=0)[None])[0]
        cluster[members] = number
        distance[members] = 1 - directions[members] @ middle
    return Clustered(cluster, distance)


def _dense_groups(directions: npt.NDArray[np.float64], smallest: int) -> npt.NDArray[np.int64]:
    """The group of each direction, from 0; -1 for none."""
    found = HDBSCAN(smallest, algorithm="brute", cluster_selection_method="leaf", copy=True).fit(
        directions
    )
    return np.where(found.probabilities_ >= _AS_DENSE, found.labels_, -1)
