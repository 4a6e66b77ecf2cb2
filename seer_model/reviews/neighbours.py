"""Nearest neighbours among embeddings: whitened, in cells that are searched apart."""

from typing import NamedTuple

import faiss
import numpy as np
import numpy.typing as npt
from sklearn.cluster import MiniBatchKMeans
from sklearn.preprocessing import normalize

__all__ = ["Neighbourhoods", "nearest"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_LINKS = 32
_SEARCH_WIDTH = 64
_LEAST_SAMPLE = 2
# Of a direction's variance, by the mean of all.
_LEAST_SHARE = 1e-3


class Neighbourhoods(NamedTuple):
    """Directions in which embeddings tell photos apart, and cells of photos that are alike.

    Embeddings are centred and whitened: what all photos have in common counts as little as what few
    of them do not (Jegou and Chum 2012, https://doi.org/10.1007/978-3-642-33709-3_55).

    Attributes:
        mean: float32, (width,).
        whitening: float32, (width, width).
        middles: float32, (cells, width), unit vectors.
    """

    mean: Floats
    whitening: Floats
    middles: Floats

    @classmethod
    def fit(cls, sample: Floats, photos: int, *, cell: int, seed: int = 0) -> "Neighbourhoods":
        """Learn from a sample.

        Args:
            sample: float32, (some thousands, width), at least two.
            photos: How many there are in all.
            cell: About so many of them are to be in a cell.
            seed: Of k-means.

        Raises:
            ValueError: The sample is too small.
        """
        if len(sample) < _LEAST_SAMPLE:
            raise ValueError(f"{len(sample)} embeddings are too few to learn from")
        mean = sample.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov((sample - mean).T.astype(np.float64)))
        # What a small sample does not vary in is noise, not a reason to tell photos apart.
        whitening = vectors / np.sqrt(np.maximum(values, max(_LEAST_SHARE * values.mean(), 1e-12)))
        found = cls(mean, whitening.astype(np.float32), np.empty((0, sample.shape[1]), np.float32))
        directions = found.directions(sample)
        count = min(max(1, round(photos / cell)), len(sample))
        if count == 1:
            middles = normalize(directions.mean(axis=0, keepdims=True))
        else:
            kmeans = MiniBatchKMeans(count, n_init=1, random_state=seed).fit(directions)
            middles = normalize(kmeans.cluster_centers_)
        return found._replace(middles=middles.astype(np.float32))

    def directions(self, features: Floats) -> Floats:
        """Whitened unit vectors, float32, (photos, width)."""
        return np.asarray(normalize((features - self.mean) @ self.whitening), np.float32)

    def cells(self, directions: Floats) -> Ints:
        """The two nearest cells of each photo, int64, (photos, up to 2): it is searched in both."""
        return nearest(self.middles, directions, min(2, len(self.middles)))[0]


def nearest(photos: Floats, asked: Floats, count: int) -> tuple[Ints, Floats]:
    """The nearest of some photos, by a graph of them (HNSW, Malkov and Yashunin 2018).

    Time grows with the logarithm of their number. The same arguments give the same result.

    Args:
        photos: float32, (photos, width), unit vectors.
        asked: float32, (asked, width), unit vectors.
        count: How many, at most as many as there are.

    Returns:
        int64, (asked, count), positions, the nearest first, and float32, their cosines. Where the
        graph leads to fewer, the position is -1.
    """
    faiss.omp_set_num_threads(1)  # With several the graph depends on who is first.
    index = faiss.IndexHNSWFlat(photos.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = index.hnsw.efSearch = max(_SEARCH_WIDTH, 2 * count)
    index.add(np.ascontiguousarray(photos))
    cosines, positions = index.search(np.ascontiguousarray(asked), count)
    return positions, cosines
