"""How good categories are, on listings whose category is known."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from seer_model.hierarchy import ClassTree
from seer_model.outcomes import Outcomes, judge

__all__ = ["BINS", "Quality", "coverage_at", "figures_of_draws", "measure_quality", "quality_of"]

Floats = npt.NDArray[np.float64]

BINS = 10
"""Equal bins of the score for the calibration error."""


@dataclass(frozen=True)
class Quality:
    """Figures over labelled listings; shares are between 0 and 1.

    Attributes:
        listings: Labelled listings.
        photographed: Those of them with a usable photo; top-1, top-5, parent, levels and
            calibration error are over these.
        known: The label is one of the classes, of all labelled listings; the others can be right
            only by an ancestor.
        top1: The best class is the label.
        top5: The label is among the best five classes.
        parent: The best class and the label have the same parent.
        coverage: Assigned, of all labelled listings.
        precision: Right, of those assigned: the category is the label or an ancestor of it.
            None where nothing was assigned.
        assigned_leaf: The category is a class itself and no ancestor, of those assigned.
        hierarchical_precision: Of the categories on the paths of those assigned, the share that is
            on the label's path too. None where nothing was assigned.
        hierarchical_recall: Of the categories on the paths of all labels, the share that is on the
            path of what was assigned (both: Kiritchenko et al. 2006, section 3).
        calibration_error: Expected calibration error of the best class's score, ten equal bins
            (Guo et al. 2017, equation 3).
        levels: At each depth, the share of labels so deep whose category there the best class has.
    """

    listings: int
    photographed: int
    known: float
    top1: float
    top5: float
    parent: float
    coverage: float
    precision: float | None
    assigned_leaf: float | None
    hierarchical_precision: float | None
    hierarchical_recall: float
    calibration_error: float
    levels: tuple[float, ...]

    def figures(self) -> dict[str, float]:
        """The figures that have a value, by name; those of levels as `level_1` and so on."""
        named = asdict(self)
        levels = {f"level_{i}": share for i, share in enumerate(named.pop("levels"), 1)}
        return {name: float(x) for name, x in (named | levels).items() if x is not None}


def measure_quality(tree: ClassTree, labels: Sequence[str], scores: pa.Table) -> Quality:
    """`judge` and `quality_of` in one; arguments and errors as those of `judge`."""
    return quality_of(judge(tree, labels, scores))


def quality_of(outcomes: Outcomes) -> Quality:
    """The figures of judged listings."""
    once = np.ones((1, len(outcomes.labels)))
    figures = figures_of_draws(outcomes, once)
    found: dict[str, Any] = {name: float(values[0]) for name, values in figures.items()}
    levels = tuple(found.pop(f"level_{i + 1}") for i in range(outcomes.levels.shape[1]))
    for name in ("precision", "assigned_leaf", "hierarchical_precision"):
        if np.isnan(found[name]):
            found[name] = None
    return Quality(
        listings=len(outcomes.labels),
        photographed=int(outcomes.photographed.sum()),
        levels=levels,
        **found,
    )


def figures_of_draws(outcomes: Outcomes, draws: Floats) -> dict[str, Floats]:
    """Figures of listings drawn with repetition, many draws at once.

    Every figure of `Quality` is a ratio of sums over listings, so a draw is a row of weights.

    Args:
        outcomes: Judged listings.
        draws: float64, (draws, listings): how often each was drawn.

    Returns:
        By name, float64 of shape (draws,). What no drawn listing has a value for is 0 among the
        figures of photographed listings and NaN among those of assigned ones.
    """

    def total(values: npt.NDArray[np.generic]) -> Floats:
        sums: Floats = draws @ values.astype(np.float64)
        return sums

    o = outcomes
    photographed, assigned = total(o.photographed), total(o.assigned)
    taken, labelled, shared = (total(column) for column in o.depths.T)
    bins = np.minimum((o.confidence * BINS).astype(int), BINS - 1)
    gaps = [
        np.abs(total((o.confidence - o.hit) * (o.photographed & (bins == b)))) for b in range(BINS)
    ]
    levels = {
        f"level_{i + 1}": _ratio(
            total((column == 1) & o.photographed), total((column >= 0) & o.photographed), 0.0
        )
        for i, column in enumerate(o.levels.T)
    }
    return {
        "known": total(o.known) / draws.sum(axis=1),
        "top1": _ratio(total(o.hit), photographed, 0.0),
        "top5": _ratio(total(o.hit5), photographed, 0.0),
        "parent": _ratio(total(o.parent), photographed, 0.0),
        "coverage": assigned / draws.sum(axis=1),
        "precision": _ratio(total(o.right), assigned, np.nan),
        "assigned_leaf": _ratio(total(o.leaf), assigned, np.nan),
        "hierarchical_precision": _ratio(shared, taken, np.nan),
        "hierarchical_recall": shared / labelled,
        "calibration_error": _ratio(np.sum(gaps, axis=0), photographed, 0.0),
        **levels,
    }


def _ratio(part: Floats, whole: Floats, otherwise: float) -> Floats:
    return np.divide(part, whole, out=np.full_like(whole, otherwise), where=whole > 0)


def coverage_at(outcomes: Outcomes, target_precision: float) -> float:
    """The largest share of listings that one threshold on the best class's score could assign.

    Such that, on these very listings, `target_precision` of those assigned have the label itself:
    what the scores' order is worth, whatever thresholds the model has. 0 where none does.
    """
    rows = np.flatnonzero(outcomes.photographed)
    order = rows[np.argsort(-outcomes.confidence[rows], kind="stable")]
    ranked = outcomes.confidence[order]
    precise = np.cumsum(outcomes.hit[order]) >= target_precision * np.arange(1, len(order) + 1)
    # A threshold takes all listings of equal score, so only the last of a tie can be one.
    usable = np.flatnonzero(precise & np.append(ranked[1:] != ranked[:-1], True)[: len(order)])
    return float(usable[-1] + 1) / len(outcomes.labels) if len(usable) else 0.0
