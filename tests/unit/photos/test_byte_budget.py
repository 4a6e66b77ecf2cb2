"""`ByteBudget` never exceeds its limit, starves nobody and never deadlocks."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from seer_model.photos.byte_budget import ByteBudget

LIMIT = 100


class Queue:
    """Threads that queue for a budget in a known order."""

    def __init__(self, budget: ByteBudget, pool: ThreadPoolExecutor) -> None:
        self.budget = budget
        self._pool = pool
        self.granted: list[int] = []

    def acquire(self, count: int) -> Future[None]:
        """Acquire in another thread; return once it waits or has the bytes."""
        waiting = len(self.budget._waiting)
        request = self._pool.submit(self._acquire, count)
        while not request.done() and len(self.budget._waiting) == waiting:
            pass
        return request

    def _acquire(self, count: int) -> None:
        self.budget.acquire(count)
        self.granted.append(count)


@pytest.fixture
def queue() -> Iterator[Callable[[int], Queue]]:
    """Builds a queue for a budget of which some bytes are held."""
    with ThreadPoolExecutor(8) as pool:

        def build(held: int) -> Queue:
            budget = ByteBudget(LIMIT)
            budget.acquire(held)
            return Queue(budget, pool)

        yield build


def test_a_request_within_the_limit_is_granted_and_any_other_refused() -> None:
    budget = ByteBudget(LIMIT)
    assert budget.try_acquire(60)
    assert budget.try_acquire(40)
    assert not budget.try_acquire(1)
    budget.release(40)
    assert not budget.try_acquire(41)
    assert budget.try_acquire(40)


def test_a_request_above_the_limit_is_granted_alone() -> None:
    budget = ByteBudget(LIMIT)
    assert budget.try_acquire(1)
    assert not budget.try_acquire(LIMIT + 1)
    budget.release(1)
    assert budget.try_acquire(LIMIT + 1)
    assert not budget.try_acquire(1)


def test_releasing_more_than_is_held_is_an_error() -> None:
    budget = ByteBudget(LIMIT)
    budget.acquire(10)
    with pytest.raises(ValueError, match="cannot release 11 bytes: only 10 are held"):
        budget.release(11)


def test_a_request_waits_until_enough_is_released(queue: Callable[[int], Queue]) -> None:
    full = queue(LIMIT)
    request = full.acquire(30)
    assert not request.done()
    full.budget.release(29)
    assert not request.done()
    full.budget.release(1)
    request.result(30)


def test_small_requests_do_not_starve_a_large_one(queue: Callable[[int], Queue]) -> None:
    used = queue(20)
    large = used.acquire(90)
    small = [used.acquire(1) for _ in range(3)]
    assert not used.budget.try_acquire(1), "it fits, but others came first"
    used.budget.release(20)
    for request in (large, *small):
        request.result(30)
    assert used.granted[0] == 90


def test_requests_that_fit_together_are_granted_together(queue: Callable[[int], Queue]) -> None:
    full = queue(LIMIT)
    requests = [full.acquire(50), full.acquire(30), full.acquire(20), full.acquire(1)]
    full.budget.release(LIMIT)
    for request in requests[:3]:
        request.result(30)
    assert not requests[3].done()
    full.budget.release(50)
    requests[3].result(30)


def test_a_request_above_the_limit_waits_until_nothing_is_held(
    queue: Callable[[int], Queue],
) -> None:
    used = queue(2)
    request = used.acquire(5 * LIMIT)
    used.budget.release(1)
    assert not request.done()
    used.budget.release(1)
    request.result(30)


def test_threads_never_hold_more_than_the_limit() -> None:
    budget, lock = ByteBudget(LIMIT), threading.Lock()
    start = threading.Barrier(8)
    held, most = 0, 0

    def work(number: int) -> None:
        nonlocal held, most
        start.wait(30)
        for turn in range(200):
            count = (number * 37 + turn * 11) % LIMIT + 1
            budget.acquire(count)
            with lock:
                held += count
                most = max(most, held)
            with lock:
                held -= count
            budget.release(count)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert held == 0
    assert most <= LIMIT
    assert budget.try_acquire(LIMIT)


class Budget(RuleBasedStateMachine):
    """Without waiting, a budget grants exactly what simple arithmetic allows."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = ByteBudget(LIMIT)
        self.held: list[int] = []

    @rule(count=st.integers(0, 2 * LIMIT))
    def try_acquire(self, count: int) -> None:
        fits = sum(self.held) == 0 or sum(self.held) + count <= LIMIT
        assert self.budget.try_acquire(count) is fits
        if fits:
            self.held.append(count)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.held) - 1))
        self.budget.release(self.held.pop(place))

    @invariant()
    def is_within_the_limit_or_held_alone(self) -> None:
        nonzero = [count for count in self.held if count]
        assert sum(nonzero) <= LIMIT or len(nonzero) == 1


TestBudget = Budget.TestCase
TestBudget.settings = settings(max_examples=40, stateful_step_count=30)
