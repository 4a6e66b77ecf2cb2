"""Neighbours among embeddings: found in their cells as well as by comparing all with all."""

import numpy as np
import numpy.typing as npt
import pytest

from seer_model.reviews.neighbours import Neighbourhoods, nearest

WIDTH = 24


def planted(photos: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Features of photos, of which the second half are the first half's, a little moved."""
    rng = np.random.default_rng(seed)
    scale = np.geomspace(10, 1, WIDTH)
    features = rng.normal(size=(photos // 2, WIDTH)) * scale + 5
    moved = features + 0.05 * rng.normal(size=features.shape) * scale
    return np.concatenate([features, moved]).astype(np.float32)


def test_directions_are_white_unit_vectors() -> None:
    features = planted(4000)
    where = Neighbourhoods.fit(features, 4000, cell=10_000)
    directions = where.directions(features)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, rtol=1e-5)
    second = directions.T @ directions / len(directions) * WIDTH
    np.testing.assert_allclose(second, np.eye(WIDTH), atol=0.15)


@pytest.mark.parametrize("cell", [10_000, 300])
def test_the_planted_neighbour_is_found(cell: int) -> None:
    features = planted(3000)
    where = Neighbourhoods.fit(features, len(features), cell=cell)
    assert len(where.middles) == max(1, round(len(features) / cell))
    directions = where.directions(features)
    cells = where.cells(directions)
    found = np.zeros(len(features), np.bool_)
    twin = np.roll(np.arange(len(features)), len(features) // 2)
    for number in range(len(where.middles)):
        members = np.flatnonzero((cells == number).any(axis=1))
        positions, cosines = nearest(directions[members], directions[members], 5)
        assert (np.diff(cosines) <= 1e-6).all()
        found[members] |= (members[positions] == twin[members, None]).any(axis=1)
    assert found.mean() > 0.99


def test_nearest_are_those_of_all() -> None:
    directions = Neighbourhoods.fit(planted(2000), 2000, cell=10_000).directions(planted(2000))
    positions, cosines = nearest(directions, directions[:200], 10)
    everything = directions[:200] @ directions.T
    best = np.argsort(-everything, axis=1)[:, :10]
    overlap = [len(set(a) & set(b)) for a, b in zip(positions.tolist(), best.tolist(), strict=True)]
    assert np.mean(overlap) > 9.8
    np.testing.assert_allclose(cosines[:, 0], 1, rtol=1e-5)


def test_the_same_again() -> None:
    first, again = (Neighbourhoods.fit(planted(2000), 2000, cell=500) for _ in range(2))
    np.testing.assert_array_equal(first.middles, again.middles)


def test_equal_embeddings_and_few_of_them() -> None:
    same = np.ones((3, WIDTH), np.float32)
    where = Neighbourhoods.fit(same, 3, cell=10)
    assert np.isfinite(where.directions(same)).all()
    with pytest.raises(ValueError, match="too few"):
        Neighbourhoods.fit(same[:1], 1, cell=10)
