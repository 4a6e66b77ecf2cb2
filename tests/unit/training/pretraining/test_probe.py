"""The nearest-neighbour probe, against the formula written out photo by photo."""

import math
from collections import defaultdict

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seer_model.training.pretraining.probe import knn_accuracy, nearest_neighbours

Array = npt.NDArray[np.floating]


def some(rows: int, seed: int, width: int = 8) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, width))


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def by_hand(train: Array, labels: list[str], queries: Array, truth: list[str], k: int) -> float:
    """Wu et al. 2018, section 3.4, as it is written."""
    right = 0
    for query, label in zip(queries, truth, strict=True):
        nearest = sorted(((cosine(v, query), n) for v, n in zip(train, labels, strict=True)))[-k:]
        votes: dict[str, float] = defaultdict(float)
        for similarity, name in nearest:
            votes[name] += math.exp(similarity / 0.07)
        right += max(votes, key=lambda name: votes[name]) == label
    return right / len(truth)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 30), st.integers(1, 25), st.integers(1, 5), st.integers(0)
)
def test_accuracy_is_that_of_the_paper(
    train: int, queries: int, k: int, classes: int, seed: int
) -> None:
    seed %= 2**32
    vectors, asked = some(train, seed), some(queries, seed + 1)
    names = np.random.default_rng(seed).integers(classes, size=train + queries).astype(str).tolist()
    labels, truth = names[:train], names[train:]
    assert knn_accuracy(vectors, labels, asked, truth, k) == by_hand(
        vectors, labels, asked, truth, k
    )


def test_neighbours_are_the_nearest_in_order_in_any_number_of_batches() -> None:
    vectors, queries = some(700, 1).astype(np.float16), some(600, 2).astype(np.float16)
    found = nearest_neighbours(vectors, queries, 5)
    a, b = vectors.astype(np.float64), queries.astype(np.float64)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    cosines = b @ a.T
    expected = -np.sort(-cosines, axis=1)[:, :5]
    assert found.similarities == pytest.approx(expected, abs=1e-5)
    assert np.take_along_axis(cosines, found.indices, 1) == pytest.approx(expected, abs=1e-5)
    assert (found.similarities.dtype, found.indices.dtype) == (np.float64, np.int64)


def test_a_vector_finds_itself_first_whatever_its_length() -> None:
    vectors = some(50, 3)
    found = nearest_neighbours(vectors, vectors * 1e-3, 1)
    assert found.indices[:, 0].tolist() == list(range(50))
    assert found.similarities == pytest.approx(1.0)


def test_fewer_vectors_than_neighbours() -> None:
    assert nearest_neighbours(some(3, 0), some(2, 1), 20).indices.shape == (2, 3)
    assert knn_accuracy(some(1, 0), ["a"], some(2, 1), ["a", "b"]) == 0.5


def test_kinds_that_lie_apart_are_told_apart_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    names = [str(n % 4) for n in range(400)]
    centres = np.eye(8)[[int(n) for n in names]]
    apart = centres + rng.normal(0, 0.1, centres.shape)
    noise = rng.standard_normal(centres.shape)
    assert knn_accuracy(apart[:300], names[:300], apart[300:], names[300:]) == 1.0
    assert knn_accuracy(noise[:300], names[:300], noise[300:], names[300:]) < 0.45


def test_vectors_of_zeros_and_unknown_labels_do_no_harm() -> None:
    vectors = np.concatenate([np.zeros((2, 8)), some(5, 1)])
    found = nearest_neighbours(vectors, np.zeros((1, 8)), 7)
    assert found.similarities == pytest.approx(0.0)
    assert knn_accuracy(vectors, ["a"] * 7, vectors, ["b"] * 7) == 0.0


@pytest.mark.parametrize(
    ("shapes", "k"), [(((0, 8), (1, 8)), 1), (((2, 8), (1, 7)), 1), (((2, 8), (1, 8)), 0)]
)
def test_what_cannot_be_compared_is_refused(shapes: tuple[tuple[int, int], ...], k: int) -> None:
    with pytest.raises(ValueError, match=r"sample|features|n_neighbors"):
        nearest_neighbours(np.zeros(shapes[0]), np.zeros(shapes[1]), k)


def test_labels_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        knn_accuracy(some(2, 0), ["a"], some(1, 1), ["a"])
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        knn_accuracy(some(2, 0), ["a", "b"], some(0, 1), [])
