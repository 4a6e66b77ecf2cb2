"""Find labels that are probably wrong: the listings like them say otherwise."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from seer_model.categorizer.thresholds import class_probabilities
from seer_model.training.crossfit import cross_fit

__all__ = ["OutOfFold", "confidently_wrong", "out_of_fold"]

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_FOLDS = 5
_BEST = 5
_ROWS_AT_ONCE = 4096


class OutOfFold(NamedTuple):
    """What heads say that have not seen a listing's own label.

    Attributes:
        confidence: float64, (listings,), the probability of the label; NaN where it is the only
            one of its class, so that nothing can contradict it.
        classes: int64, (listings, up to 5), the most probable classes, the best first.
        probabilities: float64, of the same shape.
    """

    confidence: Floats
    classes: Labels
    probabilities: Floats


def out_of_fold(
    features: npt.NDArray[np.float16], labels: Labels, *, classes: int, seed: int = 0
) -> OutOfFold:
    """Score every listing with a head of the four folds that it is not in.

    The less probable its own label, the likelier it is wrong: self-confidence (Northcutt et al.
    2021, https://arxiv.org/abs/1911.00068, and Kuan and Mueller 2022).

    Args:
        features: float16, (listings, width).
        labels: int64, (listings,), from 0 to `classes` - 1, every class at least once.
        classes: Number of classes, at least two.
        seed: Of the folds.
    """
    folds = _stratified(labels, seed)
    heads = cross_fit(features, labels, folds, classes=classes).fold_heads
    best = min(_BEST, classes)
    confidence = np.empty(len(labels))
    order = np.empty((len(labels), best), np.int64)
    probabilities = np.empty((len(labels), best))
    for fold, head in enumerate(heads):
        for rows in np.array_split(*_chunks(np.flatnonzero(folds == fold))):
            scores = class_probabilities(head.logits(features[rows].astype(np.float32)), 1.0)
            confidence[rows] = scores[np.arange(len(rows)), labels[rows]]
            order[rows] = np.argsort(-scores, axis=1, kind="stable")[:, :best]
            probabilities[rows] = np.take_along_axis(scores, order[rows], axis=1)
    confidence[np.bincount(labels)[labels] == 1] = np.nan
    return OutOfFold(confidence, order, probabilities)


def confidently_wrong(found: OutOfFold, labels: Labels) -> npt.NDArray[np.bool_]:
    """Whether another class is as probable for a listing as it is for those that have that label.

    Their number estimates how many labels are wrong: the off-diagonal of the confident joint
    (Northcutt et al. 2021, equation 1), of the five most probable classes.

    Args:
        found: From `out_of_fold`.
        labels: int64, (listings,).

    Returns:
        bool, (listings,).
    """
    known = ~np.isnan(found.confidence)
    counts = np.bincount(labels[known], minlength=int(found.classes.max()) + 1)
    sums = np.bincount(labels[known], found.confidence[known], minlength=len(counts))
    # Of a class that nothing is known of, no listing can be.
    usual = np.divide(sums, counts, out=np.full(len(counts), np.inf), where=counts > 0)
    confident = found.probabilities >= usual[found.classes]
    first = confident.argmax(axis=1)
    likeliest = found.classes[np.arange(len(labels)), first]
    return np.asarray(known & confident.any(axis=1) & (likeliest != labels), np.bool_)


def _stratified(labels: Labels, seed: int) -> Labels:
    """The fold of each listing: a class is dealt out evenly, in random order."""
    rng = np.random.default_rng(seed)
    folds = np.empty(len(labels), np.int64)
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # On and on through the classes, so that small ones do not all begin with the first fold.
    folds[by_class] = np.arange(len(labels)) % min(_FOLDS, len(labels))
    return folds


def _chunks(rows: Labels) -> tuple[Labels, int]:
    return rows, max(1, len(rows) // _ROWS_AT_ONCE)
