"""Differences between challenger and champion on the same listings, with 95 % intervals."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from seer_model.evaluation.metrics import weighted_figures
from seer_model.evaluation.outcomes import Outcomes

__all__ = [
    "Confusion",
    "Difference",
    "GroupResult",
    "compare_figures",
    "compare_groups",
    "paired_difference",
    "unpaired_difference",
    "wilson_interval",
    "worst_confusions",
]

Floats = npt.NDArray[np.float64]

_RESAMPLES = 2000
_WEIGHTS_AT_ONCE = 20_000_000


@dataclass(frozen=True)
class Difference:
    """One model or group minus another, and the interval, of 95 % where nothing else is said."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class GroupResult:
    """The result over the listings of a category or a slice.

    Attributes:
        group: Name of the category or slice.
        listings: Number of labelled listings in it.
        top1: The challenger's share of them whose best class is the label.
        top1_interval: Its 95 % interval, see `wilson_interval`.
        precision: Of all listings with this best class, the share with this label; None for slices
            and for a category that is no listing's best class.
        coverage: The challenger's share of them that were assigned a category.
        exact_coverage: The challenger's share of them that were assigned an exact class.
        top1_champion: The champion's `top1`; None without a champion.
        difference: Of `top1`, see `paired_difference`; None without a champion.
        confusion: The wrong class that is their best class most often, and how often; None if
            there is none, and for slices.
    """

    group: str
    listings: int
    top1: float
    top1_interval: tuple[float, float]
    precision: float | None
    coverage: float
    exact_coverage: float
    top1_champion: float | None
    difference: Difference | None
    confusion: tuple[str, int] | None


@dataclass(frozen=True)
class Confusion:
    """Listings of one category whose best class is another.

    Attributes:
        label: Their category.
        best: Their best class.
        listings: Number of them.
        labelled: Number of all listings of the category.
        rows: Their rows, the highest score first; only the first few.
    """

    label: str
    best: str
    listings: int
    labelled: int
    rows: tuple[int, ...]


def compare_figures(
    challenger: Outcomes, champion: Outcomes, *, seed: int = 0
) -> dict[str, Difference]:
    """Compute the differences of all figures with paired bootstrap intervals.

    Each resample of the listings is measured with both models, so that what makes a listing hard
    for both does not widen the interval (Efron and Tibshirani 1993, chapters 8 and 13: percentile
    intervals).

    Args:
        challenger: Outcomes of labelled listings.
        champion: Outcomes of the same listings, in the same order.
        seed: Seed of the resampling.

    Returns:
        By figure, as named by `metrics.weighted_figures`; figures without a value are left out.

    Raises:
        ValueError: The listings differ.
    """
    if list(challenger.labels) != list(champion.labels):
        raise ValueError("the challenger's listings are not the champion's")
    listings = len(challenger.labels)
    random = np.random.default_rng(seed)
    resampled: dict[str, list[Floats]] = {}
    at_once = max(1, _WEIGHTS_AT_ONCE // listings)
    for first in range(0, _RESAMPLES, at_once):
        weights = np.stack(
            [
                np.bincount(random.integers(0, listings, listings), minlength=listings)
                for _ in range(min(at_once, _RESAMPLES - first))
            ]
        ).astype(np.float64)
        for name, values in _differences(challenger, champion, weights).items():
            resampled.setdefault(name, []).append(values)
    observed = _differences(challenger, champion, np.ones((1, listings)))
    differences = {}
    for name, parts in resampled.items():
        if np.isfinite(observed[name][0]):
            low, high = np.nanpercentile(np.concatenate(parts), (2.5, 97.5))
            differences[name] = Difference(float(observed[name][0]), float(low), float(high))
    return differences


def _differences(challenger: Outcomes, champion: Outcomes, weights: Floats) -> dict[str, Floats]:
    figures = weighted_figures(challenger, weights)
    baseline = weighted_figures(champion, weights)
    # Of a deep level that a model assigned nothing of, it has no figure.
    none = np.zeros(len(weights))
    names = dict.fromkeys([*figures, *baseline])
    return {name: figures.get(name, none) - baseline.get(name, none) for name in names}


def compare_groups(
    groups: Mapping[str, npt.NDArray[np.int64]],
    challenger: Outcomes,
    champion: Outcomes | None,
    *,
    are_categories: bool,
) -> list[GroupResult]:
    """Return every group's result, the largest group first.

    Args:
        groups: By name, the rows of the group's listings, at least one.
        challenger: Outcomes of labelled listings.
        champion: Outcomes of the same listings, in the same order, or None.
        are_categories: Whether the names are the labels of the listings; then there are a precision
            and a confusion.
    """
    predicted = Counter(challenger.best)
    results = []
    for group, rows in groups.items():
        hits = int(challenger.hit[rows].sum())
        results.append(
            GroupResult(
                group=group,
                listings=len(rows),
                top1=hits / len(rows),
                top1_interval=wilson_interval(hits, len(rows)),
                precision=hits / predicted[group] if are_categories and predicted[group] else None,
                coverage=float(challenger.assigned[rows].mean()),
                exact_coverage=float(challenger.exact[rows].mean()),
                top1_champion=None if champion is None else float(champion.hit[rows].mean()),
                difference=(
                    None
                    if champion is None
                    else paired_difference(challenger.hit[rows], champion.hit[rows])
                ),
                confusion=_worst_confusion(challenger, rows, group) if are_categories else None,
            )
        )
    return sorted(results, key=lambda result: (-result.listings, result.group))


def wilson_interval(right: float, total: float, level: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a share (Wilson 1927, equation 8)."""
    z, share = float(norm.ppf((1 + level) / 2)), right / total
    z2 = z**2
    centre = share + z2 / (2 * total)
    spread = z * sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    low, high = ((centre + side * spread) / (1 + z2 / total) for side in (-1, 1))
    return max(0.0, low), min(1.0, high)


def paired_difference(
    challenger: npt.NDArray[np.bool_], champion: npt.NDArray[np.bool_]
) -> Difference:
    """Return the difference of two shares of the same listings, with its 95 % interval.

    The interval is Newcombe's hybrid of the two shares' score intervals (Newcombe 1998, "Improved
    confidence intervals for the difference between binomial proportions based on paired data",
    method 10). It lies between -1 and 1, and is not empty for a single listing either.

    Args:
        challenger: Whether each listing is right, (listings,), at least one.
        champion: The same for the other model, in the same order.
    """
    total = len(challenger)
    first, second = int(challenger.sum()), int(champion.sum())
    (low1, high1), (low2, high2) = wilson_interval(first, total), wilson_interval(second, total)
    share1, share2 = first / total, second / total
    phi = _correlation(int((challenger & champion).sum()), first, second, total)

    def margin(one: float, other: float) -> float:
        return sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))

    value = share1 - share2
    low = value - margin(share1 - low1, high2 - share2)
    high = value + margin(high1 - share1, share2 - low2)
    return Difference(value, max(-1.0, low), min(1.0, high))


def unpaired_difference(
    first: tuple[int, int], second: tuple[int, int], level: float = 0.95
) -> Difference:
    """Return the difference of the shares of two groups without a common listing.

    The interval is Newcombe's hybrid of the two shares' score intervals (Newcombe 1998, "Interval
    estimation for the difference between independent proportions", method 10).

    Args:
        first: How many listings of the first group are right, and how many it has, at least one.
        second: The same of the other group.
        level: The interval's confidence.
    """
    (low1, high1), (low2, high2) = (wilson_interval(*group, level) for group in (first, second))
    share1, share2 = (right / total for right, total in (first, second))
    value = share1 - share2
    return Difference(
        value,
        value - sqrt((share1 - low1) ** 2 + (high2 - share2) ** 2),
        value + sqrt((high1 - share1) ** 2 + (share2 - low2) ** 2),
    )


def _correlation(both: int, first: int, second: int, total: int) -> float:
    """Return phi of the two by two table, with method 10's correction for continuity."""
    scale = sqrt(first * (total - first) * second * (total - second))
    if not scale:
        return 0.0
    product = both * (total - first - second + both) - (first - both) * (second - both)
    return (product if product < 0 else max(0.0, product - total / 2)) / scale


def _worst_confusion(
    outcomes: Outcomes, rows: npt.NDArray[np.int64], label: str
) -> tuple[str, int] | None:
    wrong = Counter(best for row in rows if (best := outcomes.best[row]) not in (None, label))
    if not wrong:
        return None
    name, count = min(wrong.items(), key=lambda item: (-item[1], str(item[0])))
    return str(name), count


def worst_confusions(outcomes: Outcomes, most: int, examples: int) -> list[Confusion]:
    """Return the confusions with the most listings.

    Args:
        outcomes: Of labelled listings.
        most: Upper bound on the number of confusions.
        examples: Upper bound on the rows of each.
    """
    labelled = Counter(outcomes.labels)
    rows: dict[tuple[str, str], list[int]] = {}
    for row in np.argsort(-outcomes.confidence, kind="stable").tolist():
        label, best = outcomes.labels[row], outcomes.best[row]
        if best is not None and best != label:
            rows.setdefault((label, best), []).append(row)
    ranked = sorted(rows.items(), key=lambda item: (-len(item[1]), item[0]))[:most]
    return [
        Confusion(label, best, len(found), labelled[label], tuple(found[:examples]))
        for (label, best), found in ranked
    ]
