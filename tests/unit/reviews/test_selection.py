"""Which listings to ask about: unsure ones, each unlike the others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seer_model.reviews.selection import margins, most_instructive


def test_margins() -> None:
    found = margins(np.array([[0.2, 0.7, 0.1], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]))
    assert found == pytest.approx([0.5, 0.0, 1.0])


def test_one_of_each_group_comes_before_a_second_of_one() -> None:
    rng = np.random.default_rng(0)
    middles = 10 * np.eye(4, 6)
    groups = np.repeat(np.arange(4), [50, 30, 5, 1])
    features = (middles[groups] + rng.normal(0, 0.1, (len(groups), 6))).astype(np.float32)
    chosen = most_instructive(features, np.full(len(groups), 0.3), 4)
    assert sorted(groups[chosen]) == [0, 1, 2, 3]


def test_what_the_model_is_sure_of_comes_last() -> None:
    features = np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32)
    margin = np.where(np.arange(40) < 10, 0.1, 0.999)
    margin[7] = 0.0
    chosen = most_instructive(features, margin, 12)
    assert chosen[0] == 7
    assert set(chosen[:10]) == set(range(10))


def test_equal_listings_are_chosen_once_and_the_others_at_the_end() -> None:
    features = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    chosen = most_instructive(features, np.zeros(15), 15)
    assert sorted(chosen[:3] // 5) == [0, 1, 2]
    assert sorted(chosen) == list(range(15))


@pytest.mark.parametrize(("listings", "budget"), [(0, 3), (1, 3), (4, 0)])
def test_nothing_to_choose(listings: int, budget: int) -> None:
    features = np.zeros((listings, 2), np.float32)
    chosen = most_instructive(features, np.zeros(listings), budget)
    assert chosen.tolist() == list(range(min(listings, budget)))


@given(
    features=arrays(np.float32, (12, 3), elements=st.floats(-100, 100, width=32)),
    margin=arrays(np.float64, 12, elements=st.floats(0, 1)),
    budget=st.integers(1, 15),
)
def test_every_choice_is_another_listing_and_a_larger_budget_goes_on(
    features: np.ndarray, margin: np.ndarray, budget: int
) -> None:
    chosen = most_instructive(features, margin, budget)
    assert len(set(chosen.tolist())) == len(chosen) == min(budget, 12)
    assert most_instructive(features, margin, 12)[: len(chosen)].tolist() == chosen.tolist()
