"""Fit a calibration: a temperature, and thresholds that meet a target precision."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from seer_model.categorizer.hierarchy import ClassTree, LevelBest
from seer_model.categorizer.safe_threshold import chance, safe_threshold, surest_cut
from seer_model.categorizer.thresholds import Calibration, class_probabilities

__all__ = [
    "ERROR",
    "CalibrationSample",
    "Shortfall",
    "calibrate",
    "cross_entropy",
    "explain_no_threshold",
    "fit_temperature",
]

ERROR = 0.1
"""Probability that the precision is below the target at some level."""

Floats = npt.NDArray[np.float32]
Probabilities = npt.NDArray[np.float64]
Number = TypeVar("Number", bound=np.generic)

# Below it, a level leaves its share of the error to the levels above.
_WORTH_A_TEST = 0.5
# Scores in float64 are only ever held of so many listings.
_ROWS_AT_ONCE = 16_384


def cross_entropy(
    logits: Floats, targets: npt.NDArray[np.int64], temperature: float, count: int
) -> Probabilities:
    """Each row's negative log-likelihood, in nats, float64, smoothed as Platt (1999) does.

    As if one more of the `count` rows were wrong: the label has a probability of
    1 - 1 / (count + 2), the rest is shared by the classes that the head knows. Otherwise a few
    rows, all right, would ask for a temperature of 0.

    Args:
        logits: float32, (rows, classes), -inf for a class that the head does not know.
        targets: int64, (rows,), positions of the labels.
        temperature: Divisor of the logits.
        count: Rows in all, of which these may be a part.
    """
    logs = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    known = np.isfinite(logs)
    others = np.where(known, logs, 0).sum(axis=1) / known.sum(axis=1)
    smoothing = 1 / (count + 2)
    own = logs[np.arange(len(logs)), targets]
    losses: Probabilities = -(1 - smoothing) * own - smoothing * others
    return losses


@dataclasses.dataclass(frozen=True)
class CalibrationSample:
    """Listings that the head was not trained on: the ones that the promise is for, in small.

    Attributes:
        logits: float32, (listings, classes), for fused listings. A class that the listing's head
            did not know, such as one of a fold that was held out, has -inf.
        labels: The listings' true categories; a label that is not a class counts as wrong at its
            own level.
        weights: float64, (listings,), above 0: how many listings each stands for, up to a common
            factor. None if all are equal, which shows more: see `safe_threshold`.
        allowed: bool, (listings, levels), levels from the top down: whether the listing may be
            assigned at the level. Where it may not it counts neither as right nor as wrong. None
            if every listing may be assigned at every level.
    """

    logits: Floats
    labels: Sequence[str]
    weights: Probabilities | None = None
    allowed: npt.NDArray[np.bool_] | None = None


class Shortfall(NamedTuple):
    """Why no score was safe enough.

    Attributes:
        reason: In a line.
        labels_missing: How many more labelled listings it takes to choose the thresholds on,
            about; None if no number would do.
    """

    reason: str
    labels_missing: int | None


def calibrate(
    sample: CalibrationSample, tree: ClassTree, target_precision: float, error: float = ERROR
) -> Calibration:
    """Choose temperature and thresholds on listings that the head was not trained on.

    The temperature minimises the negative log-likelihood (Guo et al. 2017, section 4.2) of the
    listings whose label their head knew, smoothed for few of them: `cross_entropy`.

    The thresholds are chosen from the deepest level up, each on the listings that no deeper level
    assigned, so that with probability 1 - `error` the precision at *every* level with a threshold
    meets the target: `safe_threshold`. The levels share the error, by a union bound. One whose
    scores do not expect a threshold is not tested and leaves its share to those above. That a level
    is tested on what a deeper one left does not favour it: a listing that made the deeper walk stop
    was wrong there, and so no more often right above than others.

    A level with a single category above all classes gets no threshold: its score is 1 whatever the
    photo shows.

    Args:
        sample: The listings.
        tree: The classes.
        target_precision: Between 0 and 1.
        error: Likewise.
    """
    temperature = fit_temperature(sample, tree)
    best, is_open = _best(sample.logits, temperature, tree), _allowed(sample, tree).copy()
    thresholds: list[float | None] = [None] * len(tree.levels)
    depths = _testable(tree)
    for tested, depth in enumerate(depths):
        share = error / (len(depths) - tested)
        rows, score = is_open[:, depth], best[depth].score
        weights = None if sample.weights is None else sample.weights[rows]
        is_last = depth == depths[-1]
        if not is_last and chance(score[rows], weights, target_precision, share) < _WORTH_A_TEST:
            continue
        error -= share
        right = _is_right(tree, depth, best[depth], sample.labels)
        threshold = safe_threshold(score[rows], right[rows], weights, target_precision, share)
        thresholds[depth] = threshold
        if threshold is not None:
            is_open[rows & (score >= threshold)] = False
    return Calibration(temperature, tuple(thresholds), target_precision)


def explain_no_threshold(
    sample: CalibrationSample, tree: ClassTree, calibration: Calibration, error: float = ERROR
) -> Shortfall | None:
    """Say why the calibration has no threshold; None if it has one.

    The surest listings of a level tell how many it takes if further ones are like them, see
    `surest_cut`.

    Args:
        sample: What `calibrate` was given; weights do not count here.
        tree: Likewise.
        calibration: What it returned.
        error: What `calibrate` was given.
    """
    if not calibration.assigns_nothing:
        return None
    target, count, depths = calibration.target_precision, len(sample.labels), _testable(tree)
    best, allowed = _best(sample.logits, calibration.temperature, tree), _allowed(sample, tree)
    cuts = []
    for depth in depths:
        right, rows = _is_right(tree, depth, best[depth], sample.labels), allowed[:, depth]
        cuts.append(surest_cut(best[depth].score[rows], right[rows], target, error / len(depths)))
    cut = min(cuts)
    surest = f"of the surest {cut.taken} of {count} listings to calibrate on, {cut.right} are right"
    if math.isinf(cut.times):
        return Shortfall(
            f"no score shows a precision of {target:g}: {surest}; train on more labels, fine-tune "
            "the backbone, or lower the target",
            None,
        )
    missing = max(1, math.ceil(cut.times * count) - count)
    return Shortfall(
        f"too few labels to show a precision of {target:g}: {surest}; about {missing} more "
        "labelled listings to calibrate on are needed",
        missing,
    )


def _testable(tree: ClassTree) -> list[int]:
    """The levels that can have a threshold, the deepest first, from 0 for the top."""
    depths = [depth for depth, level in enumerate(tree.levels) if len(level.starts) > 1]
    return depths[::-1]


def _allowed(sample: CalibrationSample, tree: ClassTree) -> npt.NDArray[np.bool_]:
    if sample.allowed is not None:
        return sample.allowed
    return np.ones((len(sample.labels), len(tree.levels)), np.bool_)


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


def fit_temperature(sample: CalibrationSample, tree: ClassTree) -> float:
    """The temperature of the listings whose label their head knew, see `calibrate`; else 1."""
    targets = np.array([tree.position.get(label, -1) for label in sample.labels], np.int64)
    rows = np.flatnonzero((targets >= 0) & np.isfinite(sample.logits[range(len(targets)), targets]))
    if len(rows) == 0:
        return 1.0
    logits, targets = sample.logits[rows], targets[rows]
    weights = None if sample.weights is None else sample.weights[rows]

    def loss(log_temperature: float) -> float:
        temperature = float(np.exp(log_temperature))
        found = [
            cross_entropy(part, right, temperature, len(targets))
            for part, right in zip(_parts(logits), _parts(targets), strict=True)
        ]
        return float(np.average(np.concatenate(found), weights=weights))

    bounds = (np.log(0.05), np.log(20.0))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _is_right(
    tree: ClassTree, depth: int, found: LevelBest, labels: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """Whether the best category of a level is the label or above it, for each row."""
    best = [tree.levels[depth].categories[position] for position in found.position]
    return np.array([tree.covers(*pair) for pair in zip(best, labels, strict=True)], np.bool_)
