"""Familiarity: whether a listing is like the goods that the model was taught.

A head finds the likeliest of its classes for any photo whatever, and is often sure of it: it tells
classes apart, and does not know what they look like. So a category is assigned only to a listing
that is also near one of the category's classes (open-set recognition, Scheirer et al. 2013).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seer_model.categorizer.hierarchy import ClassTree, LevelBest

__all__ = ["Familiarity", "level_distances"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Familiarity:
    """Squared Mahalanobis distances of features to the classes' means.

    The classes share one covariance (Lee et al. 2018, equation 1), with a variance of its own along
    a few axes and one variance along all other directions, as in probabilistic principal component
    analysis (Tipping & Bishop 1999). With z = (x - mean) / scale, the distance to class k is
    |z|² - |axes z|² - 2 weight_k z + bias_k.

    Attributes:
        mean: float32, (width,).
        scale: float32, (width,).
        axes: float32, (axes, width).
        weight: float32, (classes, width).
        bias: float32, (classes,).
        limits: float32, (levels,), from the top down: how far from a category of the level a
            listing may be to be assigned it.
    """

    mean: Floats
    scale: Floats
    axes: Floats
    weight: Floats
    bias: Floats
    limits: Floats

    def distances(self, features: Floats) -> Floats:
        """Distances, float32 (rows, classes), of features, float32 (rows, width).

        A row's are bit-identical in any batch, as the logits of `LinearHead` are: no BLAS.
        """
        z = np.ascontiguousarray((features - self.mean) / self.scale)
        along = np.einsum("rw,aw->ra", z, self.axes)
        norms = np.einsum("rw,rw->r", z, z) - np.einsum("ra,ra->r", along, along)
        products = np.einsum("rw,cw->rc", z, self.weight)
        return np.asarray(norms[:, None] - 2 * products + self.bias, np.float32)

    def whiten(self, features: Floats) -> Floats:
        """Coordinates in which these distances are Euclidean: float32, (rows, width).

        Not bit-identical in every batch: for looking at listings together, never for scoring one.
        """
        z = (features - self.mean) / self.scale
        # Along an axis of length a the variance is 1 / (1 - a²) of that along the others.
        kept = np.sqrt(np.clip(1 - np.einsum("aw,aw->a", self.axes, self.axes), 0, 1))
        return np.asarray(z - (z @ self.axes.T) / (1 + kept) @ self.axes, np.float32)

    def is_familiar(
        self, features: Floats, tree: ClassTree, best: Sequence[LevelBest]
    ) -> npt.NDArray[np.bool_]:
        """Whether each row is near enough to the best category of each level.

        Args:
            features: float32, (rows, width).
            tree: The classes.
            best: Of each level, for the same rows, see `ClassTree.best`.

        Returns:
            bool, (rows, levels).
        """
        return level_distances(self.distances(features), tree, best) <= self.limits


def level_distances(distances: Floats, tree: ClassTree, best: Sequence[LevelBest]) -> Floats:
    """How far each row is from the best category of each level: from its nearest class.

    A listing of a new kind of apple is far from every apple, and perhaps no further than others
    from the nearest fruit.

    Args:
        distances: float32, (rows, classes).
        tree: The classes.
        best: Of each level, for the same rows, see `ClassTree.best`.

    Returns:
        float32, (rows, levels).
    """
    nearest = [
        np.take_along_axis(level.nearest(distances), found.position[:, None], axis=1)[:, 0]
        for level, found in zip(tree.levels, best, strict=True)
    ]
    return np.stack(nearest, axis=1)
