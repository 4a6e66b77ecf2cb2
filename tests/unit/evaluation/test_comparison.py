"""Differences between two models on the same listings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from seer_model.evaluation.comparison import (
    compare_figures,
    compare_groups,
    paired_difference,
    wilson_interval,
    worst_confusions,
)
from tests.support.evaluations import CATEGORIES, drawn_outcomes


def test_intervals_are_those_of_scipy() -> None:
    challenger, champion = drawn_outcomes(300, 0.7, 1), drawn_outcomes(300, 0.6, 2)
    found = compare_figures(challenger, champion)["top1"]
    assert found.value == pytest.approx(challenger.hit.mean() - champion.hit.mean())
    reference = stats.bootstrap(
        (challenger.hit.astype(float), champion.hit.astype(float)),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        paired=True,
        n_resamples=5000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(reference, abs=0.012)


def test_pairs_narrow_the_interval() -> None:
    # The second model errs where the first does, and on five listings more.
    first = drawn_outcomes(400, 0.6, 1)
    hit = first.hit.copy()
    hit[np.flatnonzero(hit)[:5]] = False
    second = type(first)(**{**vars(first), "hit": hit})
    found = compare_figures(first, second)["top1"]
    assert found.value == pytest.approx(5 / 400)
    assert 0 < found.low < found.high < 0.03


def test_a_model_against_itself() -> None:
    outcomes = drawn_outcomes(50, 0.5, 1)
    assert all(
        (d.value, d.low, d.high) == (0, 0, 0) for d in compare_figures(outcomes, outcomes).values()
    )


def test_the_seed_decides() -> None:
    pair = drawn_outcomes(80, 0.5, 1), drawn_outcomes(80, 0.5, 2)
    assert compare_figures(*pair, seed=3) == compare_figures(*pair, seed=3)
    assert compare_figures(*pair, seed=3) != compare_figures(*pair, seed=4)


def test_what_has_no_value_has_no_difference() -> None:
    outcomes = drawn_outcomes(20, 0.5, 1)
    nothing = np.zeros(20, np.bool_)
    none_assigned = type(outcomes)(
        **{
            **vars(outcomes),
            "assigned": nothing,
            "right": nothing,
            "depths": outcomes.depths * 0 + 1,
        }
    )
    assert "precision" not in compare_figures(outcomes, none_assigned)
    assert "top1" in compare_figures(outcomes, none_assigned)


def test_a_level_that_one_model_assigns_nothing_of_differs_by_all_of_the_other() -> None:
    outcomes = drawn_outcomes(20, 0.5, 1)
    deeper = type(outcomes)(
        **{**vars(outcomes), "depths": outcomes.depths + outcomes.assigned[:, None]}
    )
    gained = compare_figures(deeper, outcomes)["coverage_level_2"].value
    lost = compare_figures(outcomes, deeper)["coverage_level_2"].value
    assert gained == -lost == outcomes.assigned.mean()


def test_other_listings_are_refused() -> None:
    with pytest.raises(ValueError, match="not the champion's"):
        compare_figures(drawn_outcomes(20, 0.5, 1), drawn_outcomes(20, 0.5, 1, labels_seed=1))


def test_categories_by_hand() -> None:
    outcomes = drawn_outcomes(200, 0.5, 1)
    labels, best = np.array(outcomes.labels), np.array(outcomes.best)
    groups = {name: np.flatnonzero(labels == name) for name in CATEGORIES}
    found = {g.group: g for g in compare_groups(groups, outcomes, None, are_categories=True)}
    for i, name in enumerate(CATEGORIES):
        of_it, called_it = labels == name, best == name
        result = found[name]
        assert result.listings == of_it.sum()
        assert result.top1 == pytest.approx((of_it & called_it).sum() / of_it.sum())
        assert result.precision == pytest.approx((of_it & called_it).sum() / called_it.sum())
        wrong = (CATEGORIES[(i + 1) % 4], int((of_it & ~called_it).sum()))
        assert result.confusion == wrong
        assert (result.difference, result.top1_champion) == (None, None)
    counts = [g.listings for g in found.values()]
    assert counts == sorted(counts, reverse=True)


def test_slices_have_the_difference_of_their_own_listings() -> None:
    challenger, champion = drawn_outcomes(200, 0.9, 1), drawn_outcomes(200, 0.3, 2)
    rows = np.arange(40)
    [found] = compare_groups({"eu": rows}, challenger, champion, are_categories=False)
    assert found.difference is not None
    assert found.difference.value == pytest.approx(
        challenger.hit[:40].mean() - champion.hit[:40].mean()
    )
    assert 0 < found.difference.low < found.difference.value < found.difference.high
    assert (found.precision, found.confusion) == (None, None)


def test_shares_have_scipys_wilson_interval() -> None:
    for right, total in ((0, 1), (1, 1), (3, 7), (81, 263), (1000, 1000)):
        reference = stats.binomtest(right, total).proportion_ci(method="wilson")
        assert wilson_interval(right, total) == pytest.approx(tuple(reference))


def paired(both: int, first: int, second: int, neither: int) -> tuple[float, float, float]:
    """The difference and interval of a two by two table of listings."""
    ours = np.repeat([True, True, False, False], [both, first, second, neither])
    theirs = np.repeat([True, False, True, False], [both, first, second, neither])
    found = paired_difference(ours, theirs)
    return found.value, found.low, found.high


def test_paired_differences_have_the_published_interval() -> None:
    # Airway hyper-responsiveness before and after transplantation, the example of Fagerland,
    # Lydersen and Laake 2014, "Recommended tests and confidence intervals for paired binomial
    # proportions".
    assert paired(1, 1, 7, 12) == pytest.approx((-0.286, -0.507, -0.026), abs=5e-4)


@pytest.mark.parametrize("table", [(0, 0, 1, 0), (0, 1, 0, 0), (1, 0, 0, 0), (0, 0, 0, 1)])
def test_the_interval_of_one_listing_is_wide_and_possible(table: tuple[int, ...]) -> None:
    value, low, high = paired(*table)
    assert -1 <= low <= value <= high <= 1
    assert high - low > 1
    assert low <= 0 <= high


@given(st.tuples(*[st.integers(0, 40)] * 4).filter(any))
def test_an_interval_lies_between_the_possible_values(table: tuple[int, ...]) -> None:
    value, low, high = paired(*table)
    assert -1 <= low <= value <= high <= 1
    assert low < high
    both, first, second, neither = table
    swapped = paired(both, second, first, neither)
    assert swapped == pytest.approx((-value, -high, -low))


def test_the_worst_confusions_come_first_with_their_surest_listings() -> None:
    outcomes = drawn_outcomes(200, 0.5, 1)
    labels, best = np.array(outcomes.labels), np.array(outcomes.best)
    found = worst_confusions(outcomes, most=3, examples=2)
    assert len(found) == 3
    assert found[0].listings >= found[1].listings >= found[2].listings
    for confusion in found:
        rows = np.flatnonzero((labels == confusion.label) & (best == confusion.best))
        assert confusion.listings == len(rows)
        assert confusion.labelled == (labels == confusion.label).sum()
        surest = sorted(rows, key=lambda row: -outcomes.confidence[row])[:2]
        assert list(confusion.rows) == surest
    assert len(worst_confusions(outcomes, most=99, examples=1)) == 4
    assert worst_confusions(drawn_outcomes(20, 1.1, 1), most=3, examples=2) == []
