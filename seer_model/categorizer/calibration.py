"""Calibration of scores by a temperature, and thresholds that meet a target precision."""

from collections.abc import Sequence
from typing import Annotated, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, FailFast, Field
from pydantic.dataclasses import dataclass
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from seer_model.categorizer.hierarchy import ClassTree, LevelBest
from seer_model.files import STRICT

__all__ = ["Calibration", "calibrate", "class_probabilities", "lower_bound"]

Floats = npt.NDArray[np.float32]
Probabilities = npt.NDArray[np.float64]
Number = TypeVar("Number", bound=np.generic)

_ONE_SIDED_90 = 1.2816
# Scores in float64 are only ever held of so many listings.
_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True, config=STRICT | ConfigDict(extra="ignore"))
class Calibration:
    """How logits become a decision.

    Attributes:
        temperature: Divisor of the logits before the softmax.
        thresholds: One a level, from the top down: the lowest score at which a category of that
            level is assigned, or None if no score was safe enough.
        target_precision: Share of assigned listings that should be right.

    Raises:
        pydantic.ValidationError: A value is of the wrong type, not finite or out of range.
    """

    temperature: Annotated[float, Field(gt=0)]
    thresholds: Annotated[tuple[float | None, ...], FailFast()]
    target_precision: float


def class_probabilities(logits: Floats, temperature: float) -> Probabilities:
    """softmax(logits / temperature) of each row, float64, of shape (rows, classes)."""
    scaled = logits.astype(np.float64) / temperature
    probabilities: Probabilities = softmax(scaled, axis=1)
    return probabilities


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
    assigned: the lowest score above which the lower confidence bound of the precision meets the
    target. With few listings the bound is low, and so the threshold high.

    A level with a single category above all classes gets no threshold: its score is 1 whatever the
    photo shows.

    Args:
        logits: float32, (listings, classes), from the head, for fused listings.
        labels: The listings' true categories; a label that is not a class counts as wrong at its
            own level.
        tree: The classes.
        target_precision: Between 0 and 1.
    """
    known = np.array([label in tree.position for label in labels])
    targets = np.array([tree.position.get(label, 0) for label in labels], np.int64)
    temperature = _fit_temperature(logits[known], targets[known])
    best = _best(logits, temperature, tree)
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


def _parts(rows: npt.NDArray[Number]) -> list[npt.NDArray[Number]]:
    return [rows[i : i + _ROWS_AT_ONCE] for i in range(0, len(rows), _ROWS_AT_ONCE)]


def _best(logits: Floats, temperature: float, tree: ClassTree) -> list[LevelBest]:
    """The best category of each level for each row, see `ClassTree.best`."""
    parts = [tree.best(class_probabilities(part, temperature)) for part in _parts(logits)]
    return [
        LevelBest(
            np.concatenate([found.position for found in level]),
            np.concatenate([found.score for found in level]),
        )
        for level in zip(*parts, strict=True)
    ]


def _fit_temperature(logits: Floats, targets: npt.NDArray[np.int64]) -> float:
    if len(targets) == 0:
        return 1.0

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        logs = [
            log_softmax(part.astype(np.float64) / temperature, axis=1)[np.arange(len(part)), right]
            for part, right in zip(_parts(logits), _parts(targets), strict=True)
        ]
        return float(-np.concatenate(logs).mean())

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
    # A threshold admits a tie as a whole, so it can only stand at the last of a tie.
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    usable = np.flatnonzero(safe & last_of_tie)
    return float(ranked[usable[-1]]) if len(usable) else None
