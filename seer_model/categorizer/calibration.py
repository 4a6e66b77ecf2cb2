"""Calibration of scores by a temperature, and thresholds that meet a target precision."""

import math
from collections.abc import Sequence
from typing import Annotated, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, FailFast, Field
from pydantic.dataclasses import dataclass
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from seer_model.categorizer.hierarchy import ClassTree, Level, LevelBest
from seer_model.files import STRICT

__all__ = [
    "Calibration",
    "Shortfall",
    "calibrate",
    "class_probabilities",
    "explain_no_threshold",
    "lower_bound",
]

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

    @property
    def assigns_nothing(self) -> bool:
        """Whether no level has a threshold."""
        return all(threshold is None for threshold in self.thresholds)


class Shortfall(NamedTuple):
    """Why no score was safe enough.

    Attributes:
        reason: In a line.
        labels_missing: How many more labelled listings it takes to choose the thresholds on, at
            least; None if no number would do.
    """

    reason: str
    labels_missing: int | None


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
        right = _is_right(tree, level, found, labels)
        threshold = (
            None
            if len(level.starts) == 1
            else _least_safe_score(found.score[open_rows], right[open_rows], target_precision)
        )
        thresholds.append(threshold)
        if threshold is not None:
            open_rows &= found.score < threshold
    return Calibration(temperature, tuple(reversed(thresholds)), target_precision)


def explain_no_threshold(
    logits: Floats, labels: Sequence[str], tree: ClassTree, calibration: Calibration
) -> Shortfall | None:
    """Say why the calibration has no threshold; None if it has one.

    Of n listings, a share p of which is right, Wilson's bound reaches the target t if
    n (p - t)² >= z² t (1 - t). So the surest k listings tell how many it takes if further ones are
    as right as they are.

    Args:
        logits: What `calibrate` was given.
        labels: Likewise.
        tree: Likewise.
        calibration: What it returned.
    """
    if not calibration.assigns_nothing:
        return None
    target, count = calibration.target_precision, len(labels)
    best = _best(logits, calibration.temperature, tree)
    cuts = [
        (int(taken), int(right))
        for level, found in zip(tree.levels, best, strict=True)
        if len(level.starts) > 1
        for taken, right in zip(
            *_cuts(found.score, _is_right(tree, level, found, labels))[1:], strict=True
        )
    ]

    def wanted(taken: int, right: int) -> float:
        margin = right / taken - target
        if margin <= 0:
            return math.inf
        return count / taken * _ONE_SIDED_90**2 * target * (1 - target) / margin**2

    taken, right = min(cuts, key=lambda cut: (wanted(*cut), -cut[1] / cut[0], -cut[0]))
    surest = f"of the surest {taken} of {count} listings to calibrate on, {right} are right"
    if math.isinf(wanted(taken, right)):
        return Shortfall(
            f"no score shows a precision of {target:g}: {surest}; train on more labels, fine-tune "
            "the backbone, or lower the target",
            None,
        )
    missing = max(1, math.ceil(wanted(taken, right)) - count)
    return Shortfall(
        f"too few labels to show a precision of {target:g}: {surest}; at least {missing} more "
        "labelled listings to calibrate on are needed",
        missing,
    )


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


def _is_right(
    tree: ClassTree, level: Level, found: LevelBest, labels: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """Whether the best category of a level is the label or above it, for each row."""
    best = [level.categories[position] for position in found.position]
    return np.array([tree.covers(*pair) for pair in zip(best, labels, strict=True)], np.bool_)


def _least_safe_score(
    scores: Probabilities, right: npt.NDArray[np.bool_], target_precision: float
) -> float | None:
    if len(scores) == 0:
        return None
    thresholds, taken, right_of_taken = _cuts(scores, right)
    safe = np.flatnonzero(lower_bound(right_of_taken, taken) >= target_precision)
    return float(thresholds[safe[-1]]) if len(safe) else None


def _cuts(
    scores: Probabilities, right: npt.NDArray[np.bool_]
) -> tuple[Probabilities, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every threshold that tells scores apart, the highest first: itself, rows, rows right."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # A threshold admits a tie as a whole, so it can only stand at the last of a tie.
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    taken = np.arange(1, len(ranked) + 1)
    return ranked[last_of_tie], taken[last_of_tie], np.cumsum(right[order])[last_of_tie]
