"""A budget of bytes is never exceeded, starves nobody, and lets what is too large pass alone."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from seer_model.byte_budget import ByteBudget

LIMIT = 100


class Line:
    """Takers that began to wait one after the other, as the budget sees them."""

    def __init__(self, budget: ByteBudget, pool: ThreadPoolExecutor) -> None:
        self.budget = budget
        self._pool = pool
        self.granted: list[int] = []

    def take(self, count: int) -> Future[None]:
        """Take in another thread, and return once that thread waits or has what it asked for."""
        waiting = len(self.budget._waiting)
        taker = self._pool.submit(self._take, count)
        while not taker.done() and len(self.budget._waiting) == waiting:
            pass
        return taker

    def _take(self, count: int) -> None:
        self.budget.take(count)
        self.granted.append(count)


@pytest.fixture
def line() -> Iterator[Callable[[int], Line]]:
    """A budget of which some bytes are held."""
    with ThreadPoolExecutor(8) as pool:

        def build(held: int) -> Line:
            budget = ByteBudget(LIMIT)
            budget.take(held)
            return Line(budget, pool)

        yield build


def test_what_fits_is_granted_and_what_does_not_is_refused() -> None:
    budget = ByteBudget(LIMIT)
    assert budget.try_take(60)
    assert budget.try_take(40)
    assert not budget.try_take(1)
    budget.give(40)
    assert not budget.try_take(41)
    assert budget.try_take(40)


def test_what_is_above_the_limit_is_granted_alone() -> None:
    budget = ByteBudget(LIMIT)
    assert budget.try_take(1)
    assert not budget.try_take(LIMIT + 1)
    budget.give(1)
    assert budget.try_take(LIMIT + 1)
    assert not budget.try_take(1)


def test_giving_back_too_much_is_an_error() -> None:
    budget = ByteBudget(LIMIT)
    budget.take(10)
    with pytest.raises(ValueError, match="11 bytes given back, but only 10"):
        budget.give(11)


def test_held_bytes_are_given_back_after_an_error() -> None:
    budget = ByteBudget(LIMIT)

    def fail() -> None:
        with budget.hold(LIMIT):
            assert not budget.try_take(1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert budget.try_take(LIMIT)


def test_a_taker_waits_for_what_is_given_back(line: Callable[[int], Line]) -> None:
    full = line(LIMIT)
    taker = full.take(30)
    assert not taker.done()
    full.budget.give(29)
    assert not taker.done()
    full.budget.give(1)
    taker.result(30)


def test_a_large_request_is_not_starved_by_small_ones(line: Callable[[int], Line]) -> None:
    used = line(20)
    large = used.take(90)
    small = [used.take(1) for _ in range(3)]
    assert not used.budget.try_take(1), "it fits, but others were here before"
    used.budget.give(20)
    for taker in (large, *small):
        taker.result(30)
    assert used.granted[0] == 90


def test_requests_that_fit_together_are_granted_together(line: Callable[[int], Line]) -> None:
    full = line(LIMIT)
    takers = [full.take(50), full.take(30), full.take(20), full.take(1)]
    full.budget.give(LIMIT)
    for taker in takers[:3]:
        taker.result(30)
    assert not takers[3].done()
    full.budget.give(50)
    takers[3].result(30)


def test_what_is_above_the_limit_waits_until_nothing_is_held(line: Callable[[int], Line]) -> None:
    used = line(2)
    taker = used.take(5 * LIMIT)
    used.budget.give(1)
    assert not taker.done()
    used.budget.give(1)
    taker.result(30)


def test_threads_never_hold_more_than_the_limit() -> None:
    budget, lock = ByteBudget(LIMIT), threading.Lock()
    start = threading.Barrier(8)
    held, most = 0, 0

    def work(number: int) -> None:
        nonlocal held, most
        start.wait(30)
        for turn in range(200):
            count = (number * 37 + turn * 11) % LIMIT + 1
            with budget.hold(count):
                with lock:
                    held += count
                    most = max(most, held)
                with lock:
                    held -= count

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert held == 0
    assert most <= LIMIT
    assert budget.try_take(LIMIT)


class Budget(RuleBasedStateMachine):
    """Without waiting, a budget grants what a sum and a comparison say."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = ByteBudget(LIMIT)
        self.held: list[int] = []

    @rule(count=st.integers(0, 2 * LIMIT))
    def try_to_take(self, count: int) -> None:
        fits = sum(self.held) == 0 or sum(self.held) + count <= LIMIT
        assert self.budget.try_take(count) is fits
        if fits:
            self.held.append(count)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.held) - 1))
        self.budget.give(self.held.pop(place))

    @invariant()
    def within_the_limit_or_alone(self) -> None:
        counted = [count for count in self.held if count]
        assert sum(counted) <= LIMIT or len(counted) == 1


TestBudget = Budget.TestCase
