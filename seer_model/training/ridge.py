"""Ridge regression on one-hot targets: a linear head for few labels, in one pass."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from seer_model.categorizer.calibration import cross_entropy
from seer_model.linear_head import LinearHead

__all__ = ["STRENGTHS", "Choice", "HeldOutPhotos", "choose_strength", "ridge_heads"]

Features = npt.NDArray[np.float16]
Labels = npt.NDArray[np.int64]

STRENGTHS = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
"""Of the penalty, by the mean variance of the features' principal components."""

# Ridge heads give about 1 for the right class and 0 for others.
_TEMPERATURES = np.geomspace(0.01, 1, 25)
# Only so many rows are ever held in more than the two bytes a value that they come in.
_ROWS_AT_ONCE = 16_384


def ridge_heads(
    features: Features,
    labels: Labels,
    *,
    classes: int,
    strengths: Sequence[float],
) -> list[LinearHead]:
    """Fit a head for every strength; all of them cost one eigendecomposition.

    Every class has the same weight, as in `train_head`. Features are standardised, which is folded
    into the head. The heads' outputs are no log-probabilities: their scale is left to the
    temperature (Hoerl and Kennard 1970 for ridge; Rifkin et al. 2003 for regularised least squares
    as a classifier).

    Args:
        features: float16, (photos, width).
        labels: int64, (photos,), from 0 to `classes` - 1, every class at least once.
        classes: Number of classes.
        strengths: Penalties, above 0.
    """
    weights = 1 / (classes * np.bincount(labels, minlength=classes)[labels])
    width = features.shape[1]
    mean, second, by_class = np.zeros(width), np.zeros((width, width)), np.zeros((classes, width))
    for first in range(0, len(labels), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        part, chosen = features[rows].astype(np.float64), labels[rows]
        weighted = weights[rows, None] * part
        mean += weighted.sum(axis=0)
        second += part.T @ weighted
        by_class += (
            csr_array(
                (np.ones(len(chosen)), (chosen, np.arange(len(chosen)))), (classes, len(chosen))
            )
            @ weighted
        )
    covariance = second - np.outer(mean, mean)
    deviation = np.sqrt(covariance.diagonal().clip(min=0))
    deviation[deviation < 1e-6] = 1.0
    # Weighted covariance of each feature with each class's indicator, whose mean is 1 / classes.
    towards = (by_class - mean / classes) / deviation
    variances, components = np.linalg.eigh(covariance / np.outer(deviation, deviation))
    variances = variances.clip(min=0)
    projected = towards @ components
    scale = max(float(variances.mean()), 1e-12)
    heads = []
    for strength in strengths:
        weight = (projected / (variances + strength * scale)) @ components.T / deviation
        bias = 1 / classes - weight @ mean
        heads.append(LinearHead(weight.astype(np.float32), bias.astype(np.float32)))
    return heads


class HeldOutPhotos(NamedTuple):
    """Photos, and heads of every strength that were not trained on them.

    Attributes:
        heads: One per strength.
        features: float16, (photos, width).
        labels: int64, (photos,). A label that the heads do not know (its bias is -inf) is left out.
    """

    heads: Sequence[LinearHead]
    features: Features
    labels: Labels


class Choice(NamedTuple):
    """The best of `STRENGTHS`.

    Attributes:
        strength: Itself.
        temperature: To divide its logits by.
        loss: Smoothed negative log-likelihood of the photos at it, in nats: `cross_entropy`.
    """

    strength: float
    temperature: float
    loss: float


def choose_strength(held_out: Iterable[HeldOutPhotos]) -> Choice:
    """Choose the penalty with the best log-likelihood at its best temperature."""
    losses, count = np.zeros((len(STRENGTHS), len(_TEMPERATURES))), 0
    for heads, features, labels in held_out:
        rows = np.flatnonzero(np.isfinite(heads[0].bias[labels]))
        count += len(rows)
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[first : first + _ROWS_AT_ONCE]
            photos = features[part].astype(np.float32)
            for i, head in enumerate(heads):
                logits = head.logits(photos)
                losses[i] += [
                    cross_entropy(logits, labels[part], t, len(labels)).sum() for t in _TEMPERATURES
                ]
    if not count:  # One listing a class: there is nothing to choose by.
        return Choice(1.0, 1.0, float("nan"))
    best, temperature = np.unravel_index(np.argmin(losses), losses.shape)
    return Choice(STRENGTHS[best], float(_TEMPERATURES[temperature]), float(losses.min()) / count)
