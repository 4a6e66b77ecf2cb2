"""Measures of drift: by hand on large counts, near nothing by chance on small ones."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seer_model.evaluation.drift import measure_drift, psi_terms

Counts = npt.NDArray[np.int64]


def counts(*numbers: int) -> Counts:
    return np.array(numbers, np.int64)


def test_large_counts_give_what_the_formulas_do() -> None:
    found = measure_drift(counts(5 * 10**9, 5 * 10**9), counts(6 * 10**9, 4 * 10**9), ordered=True)
    assert found is not None
    psi = 0.1 * math.log(0.6 / 0.5) - 0.1 * math.log(0.4 / 0.5)
    middle = (0.55, 0.45)
    divergence = sum(
        share * math.log2(share / m) / 2
        for day in ((0.5, 0.5), (0.6, 0.4))
        for share, m in zip(day, middle, strict=True)
    )
    assert found.psi == pytest.approx(psi, abs=1e-6)
    assert found.js_distance == pytest.approx(math.sqrt(divergence), abs=1e-6)
    assert found.ks == pytest.approx(0.1, abs=1e-4)


def test_ks_follows_the_order_of_the_classes() -> None:
    found = measure_drift(counts(10**8, 0, 0, 10**8), counts(0, 10**8, 10**8, 0), ordered=True)
    assert found is not None
    assert found.ks == pytest.approx(0.5, abs=1e-3)
    unordered = measure_drift(counts(1, 2), counts(2, 1))
    assert unordered is not None
    assert unordered.ks is None


@pytest.mark.parametrize("classes", [3, 20, 300, 10_000])
@pytest.mark.parametrize("listings", [12, 60, 500, 20_000])
def test_two_days_of_one_distribution_do_not_drift(classes: int, listings: int) -> None:
    rng = np.random.default_rng(classes * listings)
    shares = rng.dirichlet(np.ones(classes))
    found = [
        measure_drift(rng.multinomial(listings, shares), rng.multinomial(listings, shares))
        for _ in range(60)
    ]
    psi = [drift.psi for drift in found if drift is not None]
    assert len(psi) == 60
    # By chance one in a hundred.
    assert sum(value > 0 for value in psi) <= 4
    assert max(psi) < 0.2


def test_without_the_correction_they_would() -> None:
    rng = np.random.default_rng(0)
    shares = np.full(300, 1 / 300)
    found = measure_drift(rng.multinomial(2200, shares), rng.multinomial(2200, shares))
    assert found is not None
    assert found.psi_with_chance > 0.2
    assert found.psi == 0


def test_a_change_is_seen_on_small_days_too() -> None:
    found = measure_drift(counts(45, 15, 10), counts(12, 50, 9), ordered=True)
    assert found is not None
    assert found.psi > 0.2
    assert found.js_distance > 0.1
    assert found.ks is not None
    assert found.ks > 0.1
    before, after = np.zeros(300, np.int64), np.zeros(300, np.int64)
    before[:150], after[150:] = 20, 20
    found = measure_drift(before, after)
    assert found is not None
    assert found.psi > 2


def test_a_class_of_one_day_only_counts_and_is_not_infinite() -> None:
    few = measure_drift(counts(1000, 0), counts(900, 100))
    many = measure_drift(counts(100_000, 0), counts(90_000, 10_000))
    assert few is not None
    assert many is not None
    assert 0.2 < few.psi < many.psi < 2


def test_rare_classes_are_taken_together() -> None:
    rare_before, rare_after = [2, 0] * 50, [0, 2] * 50
    found = measure_drift(counts(1000, 1000, *rare_before), counts(1000, 1000, *rare_after))
    assert found is not None
    assert found.psi == found.psi_with_chance == found.js_distance == 0


def test_a_day_without_listings_is_no_distribution() -> None:
    assert measure_drift(counts(), counts()) is None
    assert measure_drift(counts(0, 0), counts(3, 4)) is None
    assert measure_drift(counts(3, 4), counts(0, 0)) is None


def test_the_terms_of_the_classes_make_up_the_index() -> None:
    before, after = counts(500, 300, 200), counts(200, 300, 500)
    found = measure_drift(before, after)
    assert found is not None
    terms = psi_terms(before, after)
    assert terms.sum() == pytest.approx(found.psi_with_chance)
    assert terms[1] == pytest.approx(0)
    assert terms[0] == pytest.approx(terms[2])


@given(
    st.lists(
        st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=30
    ).filter(lambda pairs: all(sum(day) for day in zip(*pairs, strict=True)))
)
def test_measures_stay_within_their_ranges(pairs: list[tuple[int, int]]) -> None:
    before, after = (counts(*day) for day in zip(*pairs, strict=True))
    found, swapped = (
        measure_drift(*days, ordered=True) for days in ((before, after), (after, before))
    )
    assert found is not None
    assert swapped is not None
    assert found.psi == pytest.approx(swapped.psi)
    assert 0 <= found.psi <= found.psi_with_chance < math.inf
    assert 0 <= found.js_distance <= 1
    assert found.ks is not None
    assert 0 <= found.ks <= 1
    same = measure_drift(before, before, ordered=True)
    assert same is not None
    assert (same.psi, same.js_distance, same.ks) == (0, 0, 0)
