"""Nearest-neighbour probe: how good features are without training anything on them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

__all__ = ["Neighbours", "knn_accuracy", "nearest_neighbours"]

_TEMPERATURE = 0.07

Vectors = npt.NDArray[np.floating]


class Neighbours(NamedTuple):
    """The nearest vectors of each query, nearest first.

    Attributes:
        similarities: Cosines, float64, (queries, k).
        indices: Rows of the vectors, int64, (queries, k).
    """

    similarities: npt.NDArray[np.float64]
    indices: npt.NDArray[np.int64]


def nearest_neighbours(vectors: Vectors, queries: Vectors, k: int) -> Neighbours:
    """Find the vectors with the highest cosine to each query.

    Args:
        vectors: Of any length, (N, width), N above 0; the cosine of a zero vector is 0.
        queries: (Q, width), Q above 0. A query that is among the vectors finds itself first.
        k: Number of neighbours; all N if that is fewer.

    Raises:
        ValueError: There are no vectors or queries, k is below 1, or the widths differ.
    """
    index = NearestNeighbors(n_neighbors=min(k, len(vectors)), metric="cosine", algorithm="brute")
    distances, indices = index.fit(vectors).kneighbors(queries)
    return Neighbours(1 - distances, indices)


def knn_accuracy(
    train_vectors: Vectors,
    train_labels: Sequence[str],
    query_vectors: Vectors,
    query_labels: Sequence[str],
    k: int = 20,
) -> float:
    """Share of queries whose label gets the most votes of their nearest neighbours.

    Wu et al. 2018 (https://arxiv.org/abs/1805.01978), section 3.4: each of the k neighbours gives
    its label exp(cosine / 0.07) votes.

    Args:
        train_vectors: Of labelled photos, (N, width), N above 0.
        train_labels: Their labels.
        query_vectors: Of the photos to classify, (Q, width), Q above 0.
        query_labels: Their true labels; one that is not among `train_labels` counts as missed.
        k: Number of neighbours that vote; all N if that is fewer.

    Raises:
        ValueError: There are no vectors or queries, or numbers of vectors and labels differ.
    """
    classifier = KNeighborsClassifier(
        min(k, len(train_vectors)),
        weights=lambda distances: np.exp((1 - distances) / _TEMPERATURE),
        metric="cosine",
        algorithm="brute",
    )
    classifier.fit(train_vectors, np.asarray(train_labels, dtype=str))
    return float(classifier.score(query_vectors, np.asarray(query_labels, dtype=str)))
