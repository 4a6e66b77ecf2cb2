"""Scores that can be believed, and thresholds that keep a promise of precision."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from seer_model.hierarchy import ClassTree

__all__ = ["Calibration", "calibrate", "class_probabilities", "lower_bound"]

Floats = npt.NDArray[np.float32]
Probabilities = npt.NDArray[np.float64]

_ONE_SIDED_90 = 1.2816


@dataclass(frozen=True)
class Calibration:
    """How logits become a decision.

    Attributes:
        temperature: What logits are divided by before the softmax.
        thresholds: One a level from the top down: the least score at which a category of that
            level is assigned, or None where no score was safe enough.
        target_precision: The share of assigned listings that is to be right.
    """

    temperature: float
    thresholds: tuple[float | None, ...]
    target_precision: float


def class_probabilities(logits: Floats, temperature: float) -> Probabilities:
    """softmax(logits / temperature) by rows, float64, of shape (rows, classes)."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled


def lower_bound(right: npt.NDArray[np.int64], total: npt.NDArray[np.int64]) -> Probabilities:
    """Wilson's one-sided 90 % lower bound on a share, for counts (Wilson 1927, equation 8)."""
    z2 = _ONE_SIDED_90**2
    share = right / total
    centre = share + z2 / (2 * total)
    spread = _ONE_SIDED_90 * np.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    bound: Probabilities = (centre - spread) / (1 + z2 / total)
    return bound


def calibrate(
    logits: Floats, labels: Sequence[str], tree: ClassTree, target_precision: float
) -> Calibration:
    """Choose temperature and thresholds on listings that the head was not trained on.

    The temperature minimises the negative log-likelihood (Guo et al. 2017, section 4.2). The
    thresholds are chosen from the deepest level up, each on the listings that no deeper level
    took: the least score above which the precision's lower confidence bound still meets the
    target, so that few listings on `val` do not promise more than they can show.

    A level with one category above all classes gets no threshold: its score is 1 whatever the photo
    shows, and assigning it would say nothing.

    Args:
        logits: float32, (listings, classes), as the head gives for fused listings.
        labels: The listings' true categories; one that is no class counts as wrong at its level.
        tree: The classes.
        target_precision: Between 0 and 1.
    """
    known = np.array([label in tree.position for label in labels])
    targets = np.array([tree.position.get(label, 0) for label in labels], np.int64)
    temperature = _fit_temperature(logits[known], targets[known])
    best = tree.best(class_probabilities(logits, temperature))
    open_rows = np.ones(len(labels), bool)
    thresholds: list[float | None] = []
    for level, found in zip(reversed(tree.levels), reversed(best), strict=True):
        rows = np.flatnonzero(open_rows)
        right = np.array(
            [tree.covers(level.categories[found.position[i]], labels[int(i)]) for i in rows],
            np.bool_,
        )
        threshold = (
            None
            if len(level.starts) == 1
            else _least_safe_score(found.score[rows], right, target_precision)
        )
        thresholds.append(threshold)
        if threshold is not None:
            open_rows &= found.score < threshold
    return Calibration(temperature, tuple(reversed(thresholds)), target_precision)


def _fit_temperature(logits: Floats, targets: npt.NDArray[np.int64]) -> float:
    if len(targets) == 0:
        return 1.0

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        chosen = scaled[np.arange(len(targets)), targets]
        return float((np.log(np.exp(scaled).sum(axis=1)) - chosen).mean())

    bounds = (np.log(0.05), np.log(20.0))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _least_safe_score(
    scores: Probabilities, right: npt.NDArray[np.bool_], target_precision: float
) -> float | None:
    if len(scores) == 0:
        return None
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    total = np.arange(1, len(ranked) + 1)
    safe = lower_bound(np.cumsum(right[order]), total) >= target_precision
    # A threshold takes all listings of equal score, so only the last of a tie can be one.
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    usable = np.flatnonzero(safe & last_of_tie)
    return float(ranked[usable[-1]]) if len(usable) else None
