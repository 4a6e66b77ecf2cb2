"""The worst group of each slice, and the search for groups that are much worse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from seer_model.evaluation.comparison import unpaired_difference, wilson_interval
from seer_model.evaluation.groups import find_worse_slices, rows_by_slice, worst_groups
from seer_model.evaluation.outcomes import Outcomes
from tests.support.evaluations import drawn_outcomes

REGIONS = {"eu": (50, 0.9), "us": (40, 0.5), "in": (30, 0.5), "tiny": (19, 0.0)}
LISTINGS = 3000


def of_regions() -> tuple[Outcomes, list[dict[str, str]]]:
    """Listings of `REGIONS`, of which the given share is right, and ten without a region."""
    hit = [i < right * count for count, right in REGIONS.values() for i in range(count)]
    slices = [{"region": name} for name, (count, _) in REGIONS.items() for _ in range(count)]
    outcomes = drawn_outcomes(len(hit) + 10, 0.5, 1)
    outcomes.hit[: len(hit)] = hit
    return outcomes, slices + [{}] * 10


def test_the_worst_group_by_hand() -> None:
    outcomes, slices = of_regions()
    [found] = worst_groups(rows_by_slice(slices), outcomes.hit)
    # Of two that are as bad, the larger one.
    assert (found.slice, found.worst, found.listings, found.best) == ("region", "us", 40, "eu")
    assert (found.groups, found.small, found.listings_without) == (3, ("tiny",), 10)
    assert (found.top1, found.best_top1, found.gap.value) == pytest.approx((0.5, 0.9, 0.4))
    # Wider than of one group alone, because it was chosen among three.
    one = wilson_interval(20, 40)
    assert found.top1_interval == wilson_interval(20, 40, 1 - 0.05 / 3)
    assert found.top1_interval[0] < one[0] < one[1] < found.top1_interval[1]
    assert found.gap == unpaired_difference((45, 50), (20, 40), 1 - 0.05 / 3)


def test_a_slice_needs_two_groups_to_be_judged() -> None:
    outcomes = drawn_outcomes(60, 0.5, 1)
    slices = [{"one": "same", "each": str(i)} for i in range(60)]
    assert worst_groups(rows_by_slice(slices), outcomes.hit) == []
    assert worst_groups({}, outcomes.hit) == []


def test_unpaired_differences_have_the_published_interval() -> None:
    # Newcombe 1998, table II, method 10: 56/70 and 48/80, 9/10 and 3/10, 10/10 and 0/10.
    for first, second, interval in (
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((10, 10), (0, 10), (0.6075, 1.0000)),
    ):
        found = unpaired_difference(first, second)
        assert (found.low, found.high) == pytest.approx(interval, abs=5e-5)


def test_the_interval_of_a_gap_covers_although_it_was_chosen() -> None:
    """Of six groups without any difference, the gap's interval excludes zero in few draws."""
    rng = np.random.default_rng(0)
    by_slice = {f"g={i}": np.arange(60 * i, 60 * i + 60) for i in range(6)}
    excluded = 0
    for _ in range(200):
        outcomes = drawn_outcomes(360, 0.8, 1)
        outcomes.hit[:] = rng.random(360) < 0.8
        [found] = worst_groups(by_slice, outcomes.hit)
        excluded += found.gap.low > 0
    assert excluded <= stats.binom.ppf(0.99, 200, 0.05)


def drawn(seed: int) -> tuple[Outcomes, list[dict[str, str]]]:
    """Listings with three slices that mean nothing, 80 % of them right."""
    rng = np.random.default_rng(seed)
    outcomes = drawn_outcomes(LISTINGS, 0.8, seed)
    slices = [
        {"light": f"l{a}", "sender": f"s{b}", "colour": f"c{c}"}
        for a, b, c in zip(
            rng.integers(0, 3, LISTINGS),
            rng.integers(0, 40, LISTINGS),
            rng.integers(0, 6, LISTINGS),
            strict=True,
        )
    ]
    return outcomes, slices


def spoil(outcomes: Outcomes, slices: list[dict[str, str]], **where: str) -> None:
    """Make six in ten of the listings in these slices wrong."""
    rows = [i for i, named in enumerate(slices) if where.items() <= named.items()]
    outcomes.hit[rows] = np.random.default_rng(9).random(len(rows)) < 0.4


def test_a_bad_slice_is_found_alone() -> None:
    outcomes, slices = drawn(1)
    spoil(outcomes, slices, sender="s7")
    [worse] = find_worse_slices(rows_by_slice(slices), outcomes).worse
    rows = np.array([named["sender"] == "s7" for named in slices])
    assert (worse.group, worse.listings) == ("sender=s7", rows.sum())
    assert worse.top1 == pytest.approx(outcomes.hit[rows].mean())
    assert worse.rest_top1 == pytest.approx(outcomes.hit[~rows].mean())
    assert worse.difference.high < 0
    assert not outcomes.hit[list(worse.rows)].any()
    assert rows[list(worse.rows)].all()
    assert (
        list(outcomes.confidence[list(worse.rows)])
        == sorted(outcomes.confidence[rows & ~outcomes.hit], reverse=True)[: len(worse.rows)]
    )


def test_a_pair_is_found_where_its_slices_do_not_explain_it() -> None:
    outcomes, slices = drawn(1)
    spoil(outcomes, slices, light="l1", colour="c2")
    found = find_worse_slices(rows_by_slice(slices), outcomes).worse
    assert found[0].group == "light=l1 & colour=c2"
    # Its slices are worse too, because of it; no pair with a sender is.
    assert {group.group for group in found[1:]} <= {"light=l1", "colour=c2"}


def test_a_slice_is_tested_by_fishers_exact_test() -> None:
    outcomes, slices = of_regions()
    outcomes.hit[90:120] = np.arange(30) < 6
    by_slice = rows_by_slice(slices)
    search = find_worse_slices(by_slice, outcomes)
    assert search.tested == 3
    [worse] = search.worse
    inside = np.zeros(len(outcomes.hit), np.bool_)
    inside[by_slice["region=in"]] = True
    table = [[np.sum(outcomes.hit & i), np.sum(~outcomes.hit & i)] for i in (inside, ~inside)]
    assert worse.p_value == pytest.approx(3 * stats.fisher_exact(table, "less").pvalue)


def test_chance_alone_is_named_rarely() -> None:
    named = sum(
        bool(find_worse_slices(rows_by_slice(slices), outcomes).worse)
        for outcomes, slices in map(drawn, range(40))
    )
    assert named <= stats.binom.ppf(0.99, 40, 0.05)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from("ab "), st.sampled_from("xyz"))))
def test_any_slices_give_possible_figures(rows: list[tuple[bool, str, str]]) -> None:
    outcomes = drawn_outcomes(len(rows) + 1, 0.5, 1)
    outcomes.hit[:-1] = [hit for hit, _, _ in rows]
    by_slice = rows_by_slice(
        [{"one": one, "two": two} if one != " " else None for _, one, two in rows] + [None]
    )
    for group in worst_groups(by_slice, outcomes.hit):
        assert group.top1 <= group.best_top1
        assert group.gap.low <= group.gap.value <= group.gap.high
    search = find_worse_slices(by_slice, outcomes)
    for worse in search.worse:
        assert 0 <= worse.p_value <= 0.05
        assert worse.top1 < worse.rest_top1
