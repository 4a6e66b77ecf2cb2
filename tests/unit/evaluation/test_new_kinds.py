"""Clusters among listings that no class is like."""

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from seer_model.evaluation.new_kinds import cluster_listings
from seer_model.training.unseen import fit_familiarity

WIDTH = 64
_LABELS = np.arange(200) % 4
_KNOWN = np.random.default_rng(1).standard_normal((200, WIDTH)) + _LABELS[:, None]
KNOWN = fit_familiarity(_KNOWN.astype(np.float16), _LABELS, 4)


def listings_of(*kinds: int) -> npt.NDArray[np.float32]:
    """Listings of kinds that differ; one of -1 is like no other."""
    rng = np.random.default_rng(0)
    middles = 9 * rng.standard_normal((max(kinds, default=0) + 1, WIDTH))
    own = 9 * rng.standard_normal((len(kinds), WIDTH))
    noise = rng.standard_normal(own.shape)
    at = [own[i] if kind < 0 else middles[kind] for i, kind in enumerate(kinds)]
    return (np.reshape(at, own.shape) + noise).astype(np.float32)


def test_two_kinds_are_two_clusters_and_strays_are_in_none() -> None:
    kinds = [0] * 12 + [1] * 30 + [-1] * 6
    found = cluster_listings(listings_of(*kinds), KNOWN, smallest=5)
    assert found.cluster.tolist() == [2] * 12 + [1] * 30 + [0] * 6
    assert np.isnan(found.distance[42:]).all()
    assert (found.distance[:42] < 0.3).all()


def test_a_single_new_kind_is_a_cluster() -> None:
    assert (cluster_listings(listings_of(*[0] * 20), KNOWN, smallest=5).cluster == 1).all()


def test_the_least_typical_listing_is_the_furthest_from_the_middle() -> None:
    features = listings_of(*[0] * 20 + [1] * 20)
    features[3] += np.random.default_rng(5).standard_normal(WIDTH) * 2
    found = cluster_listings(features, KNOWN, smallest=5)
    assert found.cluster[3] == found.cluster[0]
    assert found.distance[:20].argmax() == 3


@given(st.lists(st.integers(-1, 3), max_size=14), st.integers(2, 8), st.booleans())
def test_any_listings_do(kinds: list[int], smallest: int, equal: bool) -> None:
    features = listings_of(*kinds)
    if equal:
        features[:] = 0
    cluster, distance = cluster_listings(features, KNOWN, smallest)
    assert cluster.shape == distance.shape == (len(kinds),)
    sizes = np.bincount(cluster)[1:]
    assert (sizes >= smallest).all()
    assert (np.diff(sizes) <= 0).all()
    assert (np.isnan(distance) == (cluster == 0)).all()
