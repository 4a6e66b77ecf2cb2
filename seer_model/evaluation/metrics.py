"""Quality figures over labelled listings, and the same under bootstrap weights."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seer_model.evaluation.outcomes import Outcomes

__all__ = ["BINS", "Quality", "coverage_at", "measure_quality", "score_bins", "weighted_figures"]

Floats = npt.NDArray[np.float64]

BINS = 10
"""Equal-width score bins of the calibration error."""


@dataclass(frozen=True)
class Quality:
    """Figures over labelled listings; shares are between 0 and 1.

    Attributes:
        listings: Number of labelled listings.
        photographed: Number of those with a usable photo; `top1`, `top5`, `parent`, `levels` and
            `calibration_error` are over these.
        known: Share of all labelled listings whose label is one of the classes; the others can be
            right only by an ancestor.
        top1: Share whose best class is the label.
        top5: Share whose label is among the best five classes.
        parent: Share whose best class has the label's parent.
        coverage: Share of all labelled listings that were assigned.
        exact_coverage: Share of all labelled listings that were assigned an exact class
            (`ClassTree.exact`), right or wrong.
        precision: Share of those assigned whose category is the label or an ancestor of it. None
            if nothing was assigned.
        hierarchical_precision: Share of the categories on the assigned paths that are on the
            labels' paths (Kiritchenko et al. 2006, section 3). None if nothing was assigned.
        hierarchical_recall: Share of the categories on all labels' paths that are on the assigned
            paths (same source).
        calibration_error: Expected calibration error of the best class's score, ten equal-width
            bins (Guo et al. 2017, equation 3).
        levels: For each depth, the share of the labels that deep whose category at that depth is
            the best class's too.
        coverage_levels: For each level, the share of all labelled listings that were assigned a
            category of that level; together they are `coverage`.
    """

    listings: int
    photographed: int
    known: float
    top1: float
    top5: float
    parent: float
    coverage: float
    exact_coverage: float
    precision: float | None
    hierarchical_precision: float | None
    hierarchical_recall: float
    calibration_error: float
    levels: tuple[float, ...]
    coverage_levels: tuple[float, ...]

    def figures(self) -> dict[str, float]:
        """Return the figures that have a value, by name; levels as `level_1` and so on."""
        named = asdict(self)
        levels = {f"level_{i}": share for i, share in enumerate(named.pop("levels"), 1)}
        covered = enumerate(named.pop("coverage_levels"), 1)
        levels |= {f"coverage_level_{i}": share for i, share in covered}
        return {name: float(x) for name, x in (named | levels).items() if x is not None}


def measure_quality(outcomes: Outcomes) -> Quality:
    """Measure all figures, each listing counted once."""
    once = np.ones((1, len(outcomes.labels)))
    figures = weighted_figures(outcomes, once)
    found: dict[str, Any] = {name: float(values[0]) for name, values in figures.items()}
    levels, coverage_levels = (
        tuple(found.pop(name) for name in list(found) if name.startswith(prefix))
        for prefix in ("level_", "coverage_level_")
    )
    for name in ("precision", "hierarchical_precision"):
        if np.isnan(found[name]):
            found[name] = None
    return Quality(
        listings=len(outcomes.labels),
        photographed=int(outcomes.photographed.sum()),
        levels=levels,
        coverage_levels=coverage_levels,
        **found,
    )


def weighted_figures(outcomes: Outcomes, weights: Floats) -> dict[str, Floats]:
    """Measure the figures under many weightings of the listings at once.

    Every figure of `Quality` is a ratio of weighted sums over listings, so a bootstrap resample is
    a row of weights.

    Args:
        outcomes: Outcomes of labelled listings.
        weights: float64, (resamples, listings): how often each listing was drawn.

    Returns:
        By name, float64 of shape (resamples,). Where the listings that a figure is over weigh
        nothing, it is 0 if it is over photographed listings and NaN if over assigned ones.
    """

    def total(values: npt.NDArray[np.generic]) -> Floats:
        sums: Floats = weights @ values.astype(np.float64)
        return sums

    o = outcomes
    listings: Floats = weights.sum(axis=1)
    photographed, assigned = total(o.photographed), total(o.assigned)
    on_assigned, on_label, on_both = (total(column) for column in o.depths.T)
    bins = score_bins(o)
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
        "known": total(o.known) / listings,
        "top1": _ratio(total(o.hit), photographed, 0.0),
        "top5": _ratio(total(o.hit5), photographed, 0.0),
        "parent": _ratio(total(o.parent), photographed, 0.0),
        "coverage": assigned / listings,
        "exact_coverage": total(o.exact) / listings,
        "precision": _ratio(total(o.right), assigned, np.nan),
        "hierarchical_precision": _ratio(on_both, on_assigned, np.nan),
        "hierarchical_recall": on_both / on_label,
        "calibration_error": _ratio(np.sum(gaps, axis=0), photographed, 0.0),
        **levels,
        **{
            f"coverage_level_{level}": total(o.depths[:, 0] == level) / listings
            for level in range(1, int(o.depths[:, :2].max()) + 1)
        },
    }


def score_bins(outcomes: Outcomes) -> npt.NDArray[np.int64]:
    """Return the bin, from 0, that each listing's confidence falls in."""
    return np.minimum((outcomes.confidence * BINS).astype(np.int64), BINS - 1)


def _ratio(part: Floats, whole: Floats, otherwise: float) -> Floats:
    return np.divide(part, whole, out=np.full_like(whole, otherwise), where=whole > 0)


def coverage_at(outcomes: Outcomes, target_precision: float) -> float:
    """Return the largest share of listings that a single score threshold could assign.

    Of the listings at or above the threshold, at least `target_precision` must have the best class
    as their label. This measures the ranking by score, whatever thresholds the model has; 0 if no
    threshold reaches the target.
    """
    rows = np.flatnonzero(outcomes.photographed)
    order = rows[np.argsort(-outcomes.confidence[rows], kind="stable")]
    ranked = outcomes.confidence[order]
    precise = np.cumsum(outcomes.hit[order]) >= target_precision * np.arange(1, len(order) + 1)
    # A threshold assigns all listings of equal score, so only the last of a tie can be a cut.
    usable = np.flatnonzero(precise & np.append(ranked[1:] != ranked[:-1], True)[: len(order)])
    return float(usable[-1] + 1) / len(outcomes.labels) if len(usable) else 0.0
