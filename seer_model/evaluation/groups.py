"""Which groups of listings are worse off: each slice's worst group, and a search among all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, triu
from scipy.stats import hypergeom

from seer_model.evaluation.comparison import Difference, unpaired_difference, wilson_interval
from seer_model.evaluation.outcomes import Outcomes

__all__ = [
    "MUCH_WORSE",
    "SMALL_SLICE",
    "Rows",
    "SliceSearch",
    "WorseSlice",
    "WorstGroup",
    "find_worse_slices",
    "rows_by_slice",
    "worst_groups",
]

SMALL_SLICE = 20
"""A group of fewer listings is not judged: by chance alone, one of many such groups is bad."""

MUCH_WORSE = 0.05
"""How far below the rest's a group's top-1 must be, besides beyond noise, to be named."""

_ERROR = 0.05
_EXAMPLES = 8

Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Rows = Mapping[str, npt.NDArray[np.int64]]
"""By `slice=value`, the rows of its listings."""


@dataclass(frozen=True)
class WorstGroup:
    """The worst and the best of the groups that a slice makes, such as its regions.

    Both were chosen by looking at the result, so the intervals are wider than one group's own: they
    hold for all groups, and all pairs of groups, at once in 95 % of cases (Bonferroni).

    Attributes:
        slice: Name of the slice.
        groups: Number of groups that were judged, those of at least `SMALL_SLICE` listings.
        worst: The value whose listings have the lowest top-1; of equals the one with more listings.
        listings: Number of listings with it.
        top1: The share of them whose best class is the label.
        top1_interval: Its interval.
        best: The value whose listings have the highest top-1.
        best_top1: Their top-1.
        gap: The best group's top-1 minus the worst's.
        small: The values of too few listings to be judged.
        listings_without: Number of listings without a value.
    """

    slice: str
    groups: int
    worst: str
    listings: int
    top1: float
    top1_interval: tuple[float, float]
    best: str
    best_top1: float
    gap: Difference
    small: tuple[str, ...]
    listings_without: int


@dataclass(frozen=True)
class WorseSlice:
    """A slice, or the listings in two slices at once, that is much worse than the rest.

    Attributes:
        group: `slice=value`, or two of them joined by ` & `.
        listings: Number of listings in it.
        top1: The share of them whose best class is the label.
        rest_top1: That of all other listings.
        difference: The first minus the second, with a 95 % interval of its own.
        p_value: Corrected for the number of groups tested (Holm 1979): with a limit of 0.05, the
            chance that any group is named without reason is at most 5 %.
        rows: The rows of its listings whose best class is wrong, the surest first; only a few.
    """

    group: str
    listings: int
    top1: float
    rest_top1: float
    difference: Difference
    p_value: float
    rows: tuple[int, ...]


@dataclass(frozen=True)
class SliceSearch:
    """How many groups were tested, and those found, the largest difference first."""

    tested: int
    worse: tuple[WorseSlice, ...]


def rows_by_slice(slices: Sequence[Mapping[str, str] | None]) -> dict[str, Ints]:
    """Return the rows of the listings of each group, by `slice=value`.

    Args:
        slices: Each listing's slices, value by name; None without any.
    """
    rows: dict[str, list[int]] = {}
    for row, named in enumerate(slices):
        for key, value in (named or {}).items():
            rows.setdefault(f"{key}={value}", []).append(row)
    return {group: np.array(indexes, np.int64) for group, indexes in rows.items()}


def worst_groups(by_slice: Rows, hit: Flags) -> list[WorstGroup]:
    """Find the worst group of every slice that has two groups to be judged.

    Args:
        by_slice: The listings of each group.
        hit: Whether the best class of each listing is its label, (listings,).
    """
    names = sorted({_name(group) for group in by_slice})
    of_name = {
        name: {
            group.partition("=")[2]: rows
            for group, rows in by_slice.items()
            if _name(group) == name
        }
        for name in names
    }
    return [
        _worst_group(name, groups, hit)
        for name, groups in of_name.items()
        if sum(len(rows) >= SMALL_SLICE for rows in groups.values()) > 1
    ]


def _worst_group(name: str, groups: Rows, hit: Flags) -> WorstGroup:
    found = sorted(
        (float(hit[rows].mean()), -len(rows), value)
        for value, rows in groups.items()
        if len(rows) >= SMALL_SLICE
    )
    (top1, _, worst), (best_top1, _, best) = found[0], found[-1]
    right = {value: int(hit[groups[value]].sum()) for value in (worst, best)}
    pairs = len(found) * (len(found) - 1) / 2
    return WorstGroup(
        slice=name,
        groups=len(found),
        worst=worst,
        listings=len(groups[worst]),
        top1=top1,
        top1_interval=wilson_interval(right[worst], len(groups[worst]), 1 - _ERROR / len(found)),
        best=best,
        best_top1=best_top1,
        gap=unpaired_difference(
            (right[best], len(groups[best])), (right[worst], len(groups[worst])), 1 - _ERROR / pairs
        ),
        small=tuple(sorted(value for value, rows in groups.items() if len(rows) < SMALL_SLICE)),
        listings_without=len(hit) - sum(map(len, groups.values())),
    )


def find_worse_slices(by_slice: Rows, outcomes: Outcomes) -> SliceSearch:
    """Search all slices, and all pairs of two slices, for groups that are much worse.

    A slice is compared with all other listings by Fisher's exact test (one-sided). A pair is also
    compared, within each of its two slices, with the rest of that slice, and the largest p-value
    counts (Berger 1982, intersection-union test): so it is named only if it is worse than its parts
    let expect. Groups of fewer than `SMALL_SLICE` listings are not tested.

    Args:
        by_slice: The listings of each group.
        outcomes: Outcomes of all listings.
    """
    groups = {group: rows for group, rows in by_slice.items() if len(rows) >= SMALL_SLICE}
    if not groups:
        return SliceSearch(0, ())
    tested = _count_pairs(list(groups.values()), outcomes.hit)
    p_values = _fisher(tested, len(outcomes.hit), int(outcomes.hit.sum()))
    for part in (tested.of_first, tested.of_second):
        within = _fisher(tested, *part)
        p_values = np.where(tested.first != tested.second, np.maximum(p_values, within), p_values)
    p_values = _holm(p_values)
    names, worse = list(groups), []
    for i in np.flatnonzero(p_values <= _ERROR):
        parts = dict.fromkeys((names[tested.first[i]], names[tested.second[i]]))
        rows = reduce(np.intersect1d, [groups[part] for part in parts])
        found = _compare_with_rest(" & ".join(parts), rows, float(p_values[i]), outcomes)
        if found.difference.value <= -MUCH_WORSE:
            worse.append(found)
    worse.sort(key=lambda found: found.difference.value)
    return SliceSearch(len(p_values), tuple(worse))


class _Tested(NamedTuple):
    """Groups and pairs of groups: arrays with an entry for each.

    Attributes:
        first: The number of the group, or of the first of a pair.
        second: The number of the second, the same where there is one group only.
        size: Number of listings.
        right: How many of them are right.
        of_first: `size` and `right` of all the listings in the first group.
        of_second: The same of the second.
    """

    first: Ints
    second: Ints
    size: Ints
    right: Ints
    of_first: tuple[Ints, Ints]
    of_second: tuple[Ints, Ints]


def _count_pairs(groups: Sequence[Ints], hit: Flags) -> _Tested:
    """Count the listings, and those that are right, of every group and pair large enough."""
    columns = np.repeat(np.arange(len(groups)), [len(rows) for rows in groups])
    rows = np.concatenate(groups)
    shape = (len(hit), len(groups))
    member = csr_array((np.ones(len(rows), np.int64), (rows, columns)), shape)
    sizes = triu(member.T @ member).tocsr()
    rights = (member.T @ (member * hit[:, None])).tocsr()
    first, second = (sizes >= SMALL_SLICE).nonzero()
    size, right = (np.asarray(counts[first, second]).ravel() for counts in (sizes, rights))
    alone = sizes.diagonal(), rights.diagonal()
    of_first, of_second = ((alone[0][i], alone[1][i]) for i in (first, second))
    return _Tested(first, second, size, right, of_first, of_second)


def _fisher(tested: _Tested, listings: Ints | int, right: Ints | int) -> Floats:
    """Return the p-values of the groups within larger ones that have these counts.

    It is the probability that a random group of that size is right as rarely (Fisher 1935).
    """
    return np.asarray(hypergeom.cdf(tested.right, listings, right, tested.size), np.float64)


def _holm(p_values: Floats) -> Floats:
    """Correct for the number of tests, however they depend on each other (Holm 1979)."""
    order = np.argsort(p_values)
    remaining = len(p_values) - np.arange(len(p_values))
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * remaining), 1.0)
    return corrected


def _compare_with_rest(group: str, rows: Ints, p_value: float, outcomes: Outcomes) -> WorseSlice:
    right, all_right = int(outcomes.hit[rows].sum()), int(outcomes.hit.sum())
    rest = all_right - right, len(outcomes.hit) - len(rows)
    wrong = rows[~outcomes.hit[rows]]
    surest = wrong[np.argsort(-outcomes.confidence[wrong], kind="stable")]
    return WorseSlice(
        group=group,
        listings=len(rows),
        top1=right / len(rows),
        rest_top1=rest[0] / rest[1],
        difference=unpaired_difference((right, len(rows)), rest),
        p_value=p_value,
        rows=tuple(surest[:_EXAMPLES].tolist()),
    )


def _name(group: str) -> str:
    return group.partition("=")[0]
