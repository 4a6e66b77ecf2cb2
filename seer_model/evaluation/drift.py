"""Drift: how far the categories and scores of one day are from those of another, beyond chance.

Two days differ by chance even if nothing changed, and more so the fewer listings and the more
categories there are. So each measure has its 99 % quantile under no change subtracted: it is 0
unless the days differ by more than that, and converges to the plain measure as counts grow.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, kolmogi, rel_entr

from schemas.categories import Decision, ReviewReason

__all__ = [
    "DISTRIBUTIONS",
    "SCORE_BINS",
    "DayCounts",
    "Drift",
    "compare_days",
    "measure_drift",
    "psi_terms",
]

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]

DISTRIBUTIONS = ("category", "top_level", "decision", "review_reason", "reject_reason", "score")
"""What is compared; `category` and `top_level` (its top ancestor) are of the listings assigned."""
SCORE_BINS = 20
"""Bins of equal width, from 0 to 1."""

_MOST_MOVED = 15
_LEAST_EXPECTED = 5
_SMOOTHING = 0.5
_CONFIDENCE = 0.99


@dataclass(frozen=True)
class DayCounts:
    """A published partition, counted.

    Attributes:
        ds: The partition's date.
        model: The model, or models, that its rows name.
        taxonomy_version: The taxonomy version, or versions, that its rows name.
        counts: Listings by value, for each of `DISTRIBUTIONS`; a score's value is its bin, from 0.
            Listings without a value are left out.
        paths: Path by category.
    """

    ds: str
    model: str
    taxonomy_version: str
    counts: Mapping[str, Counter[Any]]
    paths: Mapping[str, str]

    @property
    def listings(self) -> int:
        """Number of listings; each has a decision."""
        return self.counts["decision"].total()


@dataclass(frozen=True)
class Drift:
    """Distance between two distributions; 0 if it is within chance.

    Attributes:
        psi: Population stability index; by convention, from 0.2 on a change to look into.
        js_distance: Jensen-Shannon distance, base 2, from 0 to 1.
        ks: Kolmogorov-Smirnov statistic, from 0 to 1; None for classes without an order.
        psi_with_chance: The index before chance is subtracted, comparable with other tools'.
    """

    psi: float
    js_distance: float
    ks: float | None
    psi_with_chance: float


def compare_days(before: DayCounts, after: DayCounts) -> dict[str, Any]:
    """Compare two days.

    Returns:
        JSON-serializable: `before` and `after` (ds, listings, model, taxonomy version); `measures`,
        for each of `DISTRIBUTIONS` a `Drift`, or None where a day has no values; `decisions` and
        `review_reasons` and `scores`, listings of each day by decision, by review reason and by
        score bin; `moved_most`, the categories
        that add most to the PSI; `largest_moves`, for each of `DISTRIBUTIONS` that moved beyond
        chance, the value that adds most to its PSI.
    """
    measures, largest_moves = {}, {}
    for name in DISTRIBUTIONS:
        values = sorted(before.counts[name] | after.counts[name])
        counts = [_array(day, name, values) for day in (before, after)]
        drift = measure_drift(*counts, ordered=name == "score")
        measures[name] = drift and asdict(drift)
        if drift and drift.psi:
            most = int(psi_terms(*counts).argmax())
            paths = {**before.paths, **after.paths} if name == "category" else {}
            largest_moves[name] = {
                "value": paths.get(values[most], values[most]),
                "share_before": float(counts[0][most] / counts[0].sum()),
                "share_after": float(counts[1][most] / counts[1].sum()),
            }
    days = {"before": before, "after": after}
    return {
        **{
            role: {
                "ds": day.ds,
                "listings": day.listings,
                "model": day.model,
                "taxonomy_version": day.taxonomy_version,
            }
            for role, day in days.items()
        },
        "measures": measures,
        "decisions": {
            decision.value: {role: day.counts["decision"][decision] for role, day in days.items()}
            for decision in Decision
        },
        "review_reasons": {
            reason.value: {role: day.counts["review_reason"][reason] for role, day in days.items()}
            for reason in ReviewReason
        },
        "scores": {
            role: _array(day, "score", range(SCORE_BINS)).tolist() for role, day in days.items()
        },
        "moved_most": _moved_most(before, after),
        "largest_moves": largest_moves,
    }


def _array(day: DayCounts, name: str, values: Iterable[Any]) -> Counts:
    return np.array([day.counts[name][value] for value in values], np.int64)


def _moved_most(before: DayCounts, after: DayCounts) -> list[dict[str, Any]]:
    categories = sorted(before.counts["category"] | after.counts["category"])
    counts = [_array(day, "category", categories) for day in (before, after)]
    if not all(day.sum() for day in counts):
        return []
    terms = psi_terms(*counts)
    return [
        {
            "category_id": categories[i],
            "path": after.paths.get(categories[i]) or before.paths[categories[i]],
            "before": int(counts[0][i]),
            "after": int(counts[1][i]),
            "share_before": float(counts[0][i] / counts[0].sum()),
            "share_after": float(counts[1][i] / counts[1].sum()),
            "psi_term": float(terms[i]),
        }
        for i in np.argsort(-terms, kind="stable")[:_MOST_MOVED]
    ]


def measure_drift(before: Counts, after: Counts, *, ordered: bool = False) -> Drift | None:
    """Measure the distance between two distributions over the same classes.

    Population stability index: the symmetric Kullback-Leibler divergence, the sum of
    `(p - q) ln(p / q)` (J in Kullback & Leibler 1951). Half a listing is added to every class
    (Jeffreys' prior), so that a class seen on one day only counts without being infinite. Classes
    with an expected count below five on either day (Cochran 1954) are pooled first. Under no
    change the index is approximately (1/n + 1/m) times chi-squared with one degree of freedom less
    than there are classes (Yurdakul & Naranjo 2020), n and m being the days' listings; the 99 %
    quantile of that is subtracted.

    Jensen-Shannon distance: the root of the divergence (Endres & Schindelin 2003). For small
    differences the divergence is an eighth of the index, and so is the chance subtracted.

    Kolmogorov-Smirnov statistic: over classes, a lower bound of the one over values; the
    asymptotic 99 % quantile, 1.63 times the root of (1/n + 1/m), is subtracted.

    Args:
        before: int64, (classes,), not negative.
        after: The same classes on the other day.
        ordered: Whether the classes have an order, and so cumulative shares.

    Returns:
        None if one of the days has no listing.
    """
    if not before.sum() or not after.sum():
        return None
    spread = 1 / before.sum() + 1 / after.sum()
    pooled_before, pooled_after = _pool(before, after)
    degrees = len(pooled_before) - 1
    chance = float(chdtri(degrees, 1 - _CONFIDENCE) * spread) if degrees else 0.0
    psi = float(psi_terms(pooled_before, pooled_after).sum())
    divergence = _jensen_shannon(pooled_before, pooled_after)
    ks = None
    if ordered:
        gap = np.abs(np.cumsum(before) / before.sum() - np.cumsum(after) / after.sum()).max()
        ks = max(0.0, float(gap - kolmogi(1 - _CONFIDENCE) * np.sqrt(spread)))
    return Drift(
        psi=max(0.0, psi - chance),
        js_distance=float(np.sqrt(max(0.0, divergence - chance / 8) / np.log(2))),
        ks=ks,
        psi_with_chance=psi,
    )


def psi_terms(before: Counts, after: Counts) -> Shares:
    """Return each class's term of the population stability index, smoothed, with chance in it.

    Returns:
        float64, (classes,), not negative.
    """
    p, q = _smoothed(before), _smoothed(after)
    terms: Shares = rel_entr(p, q) + rel_entr(q, p)
    return terms


def _jensen_shannon(before: Counts, after: Counts) -> float:
    """Divergence of the shares, in nats (Lin 1991)."""
    p, q = before / before.sum(), after / after.sum()
    middle = (p + q) / 2
    return float(rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / 2


def _smoothed(counts: Counts) -> Shares:
    smoothed: Shares = (counts + _SMOOTHING) / (counts + _SMOOTHING).sum()
    return smoothed


def _pool(before: Counts, after: Counts) -> tuple[Counts, Counts]:
    """Pool the classes that are too rare to compare, and drop those never seen."""
    both = before + after
    smaller = min(before.sum(), after.sum()) / both.sum()
    rare = both * smaller < _LEAST_EXPECTED
    pooled: list[Any] = [np.append(c[~rare], c[rare].sum()) for c in (before, after)]
    if not both[rare].any():
        pooled = [counts[:-1] for counts in pooled]
    return pooled[0], pooled[1]
