"""Thresholds that are shown to be safe: by hand, against scipy, and by simulation."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from seer_model.categorizer.safe_threshold import chance, safe_threshold, surest_cut

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def drawn(rows: int, seed: int, sharpness: float = 1.0) -> tuple[Floats, Flags]:
    """Scores that are probabilities if `sharpness` is 1, and what is right."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(6, 1, rows)
    odds = (truth / (1 - truth)) ** sharpness
    return odds / (1 + odds), rng.random(rows) < truth


def p_value(right: int, total: int, target: float) -> float:
    return float(binomtest(right, total, target, alternative="greater").pvalue)


# By hand


def test_of_22_all_must_be_right() -> None:
    """0.9^22 = 0.098 and 0.9^21 = 0.109."""
    scores, right = np.linspace(0.99, 0.97, 22), np.ones(22, bool)
    assert safe_threshold(scores, right, None, 0.9, 0.1) == scores[-1]
    assert safe_threshold(scores[:21], right[:21], None, 0.9, 0.1) is None
    right[21] = False
    assert safe_threshold(scores, right, None, 0.9, 0.1) is None


def test_with_weights_it_takes_28() -> None:
    """Chernoff's exponent of a right row is -0.0847: exp(-0.0847 * 28) = 0.093."""
    scores, right = np.full(28, 0.99), np.ones(28, bool)
    assert safe_threshold(scores, right, np.full(28, 0.3), 0.9, 0.1) == 0.99
    assert safe_threshold(scores[:27], right[:27], np.full(27, 0.3), 0.9, 0.1) is None


def test_one_mistake_is_allowed_in_38() -> None:
    scores, right = np.linspace(0.999, 0.97, 38), np.ones(38, bool)
    right[30] = False
    assert safe_threshold(scores, right, None, 0.9, 0.1) == scores[-1]
    assert safe_threshold(scores[:37], right[:37], None, 0.9, 0.1) == scores[21]


def test_nothing_to_test_on() -> None:
    assert safe_threshold(np.empty(0), np.empty(0, bool), None, 0.9, 0.1) is None
    assert safe_threshold(np.empty(0), np.empty(0, bool), np.empty(0), 0.9, 0.1) is None
    assert safe_threshold(np.zeros(30), np.ones(30, bool), None, 0.9, 0.1) is None
    assert chance(np.empty(0), None, 0.9, 0.1) == 0


def test_a_tie_passes_as_a_whole_or_not_at_all() -> None:
    right = np.append(np.ones(30, bool), np.zeros(10, bool))
    assert safe_threshold(np.full(40, 0.95), right, None, 0.9, 0.1) is None
    surer = np.append(np.full(30, 0.998), np.full(40, 0.8))
    both = np.append(np.ones(30, bool), right)
    assert safe_threshold(surer, both, None, 0.9, 0.1) == 0.998


def test_the_chance_is_that_of_the_first_test() -> None:
    """22 rows of 0.99 are all right with probability 0.99^22."""
    assert chance(np.full(22, 0.99), None, 0.9, 0.1) == pytest.approx(0.99**22)
    assert chance(np.full(21, 0.99), None, 0.9, 0.1) == 0


def test_a_wrong_label_among_the_surest_does_not_end_the_walk() -> None:
    """Of 300 listings 294 are right, and the 21st has a wrong label."""
    scores = np.linspace(0.9999, 0.95, 300)
    right = np.ones(300, np.bool_)
    right[[20, 200, 250, 270, 280, 290]] = False
    assert safe_threshold(scores, right, None, 0.9, 0.1) == scores[-1]


# What is promised


@settings(max_examples=100)
@given(
    rows=st.integers(1, 300),
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.5, 1.0, 3.0]),
    target=st.sampled_from([0.5, 0.8, 0.9, 0.99]),
    error=st.sampled_from([0.01, 0.1, 0.3]),
    ties=st.booleans(),
)
def test_what_is_admitted_passes_an_exact_test(
    rows: int, seed: int, sharpness: float, target: float, error: float, ties: bool
) -> None:
    scores, right = drawn(rows, seed, sharpness)
    if ties:
        scores = np.round(scores, 1)
    threshold = safe_threshold(scores, right, None, target, error)
    order = np.random.default_rng(seed).permutation(rows)
    assert safe_threshold(scores[order], right[order], None, target, error) == threshold
    if threshold is not None:
        assert threshold in scores
        admitted = right[scores >= threshold]
        assert p_value(int(admitted.sum()), len(admitted), target) <= error
    # The bound of rows with weights is no bolder than the exact test.
    weighted = safe_threshold(scores, right, np.full(rows, 7.0), target, error)
    if weighted is not None:
        admitted = right[scores >= weighted]
        assert p_value(int(admitted.sum()), len(admitted), target) <= error


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("truth", [0.9, 0.99])
def test_few_runs_break_the_promise(weighted: bool, truth: float) -> None:
    """Scores say nothing: every threshold has the same precision, of the target or above.

    The share of runs that find a threshold is at most the error where each would be a mistake
    (0.1 + three standard deviations of 500 runs), and large where none is.
    """
    rng, found = np.random.default_rng(1), 0
    for _ in range(500):
        weights = rng.choice([0.2, 1.0], 300) if weighted else None
        right = rng.random(300) < truth
        threshold = safe_threshold(rng.uniform(0.9, 1, 300), right, weights, 0.9, 0.1)
        found += threshold is not None
    assert found / 500 <= 0.14 if truth == 0.9 else found / 500 > 0.6


def test_a_row_counts_by_its_weight() -> None:
    """200 right rows, and 60 wrong ones that stand for less and less."""
    scores = np.full(260, 0.97)
    right = np.append(np.ones(200, bool), np.zeros(60, bool))

    def threshold(weight: float) -> float | None:
        weights = np.append(np.ones(200), np.full(60, weight))
        return safe_threshold(scores, right, weights, 0.9, 0.1)

    assert threshold(1.0) is None
    assert threshold(0.3) is None  # 200 / 218 = 0.917.
    assert threshold(0.05) == 0.97  # 200 / 203 = 0.985.


# How far from a threshold


@given(
    rows=st.integers(1, 200),
    seed=st.integers(0, 10_000),
    target=st.sampled_from([0.5, 0.8, 0.9]),
    error=st.sampled_from([0.01, 0.1]),
)
def test_so_many_times_the_rows_of_the_surest_cut_would_do(
    rows: int, seed: int, target: float, error: float
) -> None:
    scores, right = drawn(rows, seed)
    cut = surest_cut(scores, right, target, error)
    assert cut.right == np.sort(right[np.argsort(-scores)][: cut.taken]).sum()
    if np.isinf(cut.times):
        shares = np.cumsum(right[np.argsort(-scores)]) / np.arange(1, rows + 1)
        assert (shares <= target).all()
    else:
        times = max(1, int(np.ceil(cut.times)))
        assert p_value(cut.right * times, cut.taken * times, target) <= error + 1e-12
