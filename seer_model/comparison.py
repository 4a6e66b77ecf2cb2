"""Is the challenger better than the champion? Both on the same listings, beyond noise."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seer_model.metrics import figures_of_draws
from seer_model.outcomes import Outcomes

__all__ = ["Difference", "GroupResult", "compare", "compare_groups", "worst_confusion"]

DRAWS = 2000
_WEIGHTS_AT_ONCE = 20_000_000
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Difference:
    """Challenger minus champion, and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class GroupResult:
    """A category's or a slice's listings.

    Attributes:
        group: Its name.
        listings: Labelled listings in it.
        top1: The challenger's share of them whose best class is the label.
        precision: Of the listings whose best class it is, the share labelled so; None for slices
            and where there are none.
        coverage: The challenger's share of them that got a category.
        top1_champion: As `top1`, of the champion; None without one.
        difference: Of the top-1, with Wald's interval for paired shares; None without a champion.
        confusion: The class it is mistaken for most, how often; None where it never is.
    """

    group: str
    listings: int
    top1: float
    precision: float | None
    coverage: float
    top1_champion: float | None
    difference: Difference | None
    confusion: tuple[str, int] | None


def compare(challenger: Outcomes, champion: Outcomes, *, seed: int = 0) -> dict[str, Difference]:
    """Differences of all figures with paired bootstrap intervals.

    Listings are drawn with repetition, and each draw is measured with both models, so that what
    makes a listing hard for both does not widen the interval (Efron and Tibshirani 1993, chapters
    8 and 13: percentile intervals).

    Args:
        challenger: Judged listings.
        champion: The same listings in the same order.
        seed: Of the draws.

    Returns:
        By figure, as `metrics.figures_of_draws` names them; those without a value are left out.

    Raises:
        ValueError: The listings are not the same.
    """
    if list(challenger.labels) != list(champion.labels):
        raise ValueError("the challenger's listings are not the champion's")
    listings = len(challenger.labels)
    random = np.random.default_rng(seed)
    drawn: dict[str, list[npt.NDArray[np.float64]]] = {}
    at_once = max(1, _WEIGHTS_AT_ONCE // listings)
    for first in range(0, DRAWS, at_once):
        draws = np.stack(
            [
                np.bincount(random.integers(0, listings, listings), minlength=listings)
                for _ in range(min(at_once, DRAWS - first))
            ]
        ).astype(np.float64)
        for name, difference in _differences(challenger, champion, draws).items():
            drawn.setdefault(name, []).append(difference)
    observed = _differences(challenger, champion, np.ones((1, listings)))
    found = {}
    for name, parts in drawn.items():
        values = np.concatenate(parts)
        if np.isfinite(observed[name][0]):
            low, high = np.nanpercentile(values, (2.5, 97.5))
            found[name] = Difference(float(observed[name][0]), float(low), float(high))
    return found


def _differences(
    challenger: Outcomes, champion: Outcomes, draws: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.float64]]:
    mine, theirs = figures_of_draws(challenger, draws), figures_of_draws(champion, draws)
    return {name: mine[name] - theirs[name] for name in mine}


def compare_groups(
    groups: Mapping[str, npt.NDArray[np.int64]],
    challenger: Outcomes,
    champion: Outcomes | None,
    *,
    are_categories: bool,
) -> list[GroupResult]:
    """The result in every group, the largest group first.

    Args:
        groups: By name, the rows of its listings, at least one.
        challenger: Judged listings.
        champion: The same listings in the same order, or None.
        are_categories: The names are the labels of their listings, which then have a precision and
            a confusion.
    """
    predicted = Counter(challenger.best)
    found = []
    for group, rows in groups.items():
        hits = int(challenger.hit[rows].sum())
        found.append(
            GroupResult(
                group=group,
                listings=len(rows),
                top1=hits / len(rows),
                precision=hits / predicted[group] if are_categories and predicted[group] else None,
                coverage=float(challenger.assigned[rows].mean()),
                top1_champion=None if champion is None else float(champion.hit[rows].mean()),
                difference=None if champion is None else _paired(challenger, champion, rows),
                confusion=worst_confusion(challenger.best, rows, group) if are_categories else None,
            )
        )
    return sorted(found, key=lambda result: (-result.listings, result.group))


def _paired(challenger: Outcomes, champion: Outcomes, rows: npt.NDArray[np.int64]) -> Difference:
    differences = challenger.hit[rows].astype(float) - champion.hit[rows].astype(float)
    mean = float(differences.mean())
    margin = _NORMAL_95 * float(differences.std()) / np.sqrt(len(rows))
    return Difference(mean, mean - margin, mean + margin)


def worst_confusion(
    best: Sequence[str | None], rows: npt.NDArray[np.int64], label: str
) -> tuple[str, int] | None:
    """The class that listings of a label are given most often in its stead, and how many are."""
    wrong = Counter(best[row] for row in rows if best[row] not in (None, label))
    if not wrong:
        return None
    name, count = min(wrong.items(), key=lambda item: (-item[1], item[0]))
    return str(name), count
