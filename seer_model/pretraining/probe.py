"""How good features are without training anything on them: nearest neighbours."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

__all__ = ["Neighbours", "knn_accuracy", "nearest_neighbours"]

_TEMPERATURE = 0.07
_QUERIES_AT_ONCE = 256

Vectors = npt.NDArray[np.floating]


class Neighbours(NamedTuple):
    """The nearest vectors of each query, nearest first.

    Attributes:
        similarities: Cosines, float32, (queries, k).
        indices: Rows of the vectors, int64, (queries, k).
    """

    similarities: npt.NDArray[np.float32]
    indices: npt.NDArray[np.int64]


def nearest_neighbours(
    vectors: Vectors, queries: Vectors, k: int, *, device: torch.device | str = "cpu"
) -> Neighbours:
    """Find the vectors that point most nearly where each query does.

    Args:
        vectors: Of any length, (N, width); a vector of zeros is at a cosine of 0 to all.
        queries: (Q, width). A query that is among the vectors finds itself first.
        k: How many; all N if that is fewer.
        device: Where to compute, a few hundred queries at a time.

    Raises:
        ValueError: There are no vectors, k is below 1, or the widths differ.
    """
    if vectors.ndim != 2 or queries.ndim != 2 or vectors.shape[1] != queries.shape[1]:
        raise ValueError(f"vectors of shape {vectors.shape} and queries of shape {queries.shape}")
    if not len(vectors) or k < 1:
        raise ValueError(f"{k} neighbours among {len(vectors)} vectors")
    k = min(k, len(vectors))
    known = _unit(vectors, device).T.contiguous()
    similarities = np.empty((len(queries), k), np.float32)
    indices = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        some = slice(start, start + _QUERIES_AT_ONCE)
        found = (_unit(queries[some], device) @ known).topk(k, dim=1)
        similarities[some], indices[some] = found.values.cpu().numpy(), found.indices.cpu().numpy()
    return Neighbours(similarities, indices)


def knn_accuracy(
    train_vectors: Vectors,
    train_labels: Sequence[str],
    query_vectors: Vectors,
    query_labels: Sequence[str],
    k: int = 20,
    *,
    device: torch.device | str = "cpu",
) -> float:
    """Share of queries whose label their nearest neighbours vote for.

    Wu et al. 2018 (https://arxiv.org/abs/1805.01978), section 3.4: each of the k neighbours gives
    its label exp(cosine / 0.07) votes.

    Args:
        train_vectors: Of labelled photos, (N, width).
        train_labels: Their labels.
        query_vectors: Of the photos to judge by, (Q, width).
        query_labels: Theirs; one that no photo is labelled with counts as missed.
        k: How many neighbours vote; all N if that is fewer.
        device: Where to compute.

    Raises:
        ValueError: There is nothing to compare, or numbers of vectors and labels differ.
    """
    if len(train_vectors) != len(train_labels) or len(query_vectors) != len(query_labels):
        raise ValueError(
            f"{len(train_vectors)} vectors with {len(train_labels)} labels, "
            f"{len(query_vectors)} queries with {len(query_labels)}"
        )
    if not len(query_vectors):
        raise ValueError("no queries")
    classes, votes_for = np.unique(np.asarray(train_labels, dtype=str), return_inverse=True)
    neighbours = nearest_neighbours(train_vectors, query_vectors, k, device=device)
    # Less the nearest, so that no exponential is too small to count.
    nearest = neighbours.similarities[:, :1]
    weights = np.exp((neighbours.similarities - nearest) / _TEMPERATURE)
    votes = np.zeros((len(query_vectors), len(classes)), np.float32)
    rows = np.arange(len(query_vectors))[:, None]
    np.add.at(votes, (rows, votes_for[neighbours.indices]), weights)
    elected = classes[votes.argmax(axis=1)]
    return float((elected == np.asarray(query_labels, dtype=str)).mean())


def _unit(vectors: Vectors, device: torch.device | str) -> torch.Tensor:
    rows = torch.from_numpy(np.ascontiguousarray(vectors)).to(device).float()
    return functional.normalize(rows, dim=1)
