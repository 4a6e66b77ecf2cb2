"""A number of bytes that threads share, so that together they stay within a limit."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ByteBudget"]


class ByteBudget:
    """Bytes that threads take and give back, first come, first served.

    What is above the limit by itself is granted once nothing else is held, so that nothing waits
    for ever. A request waits behind those before it even where it would fit, so that no stream of
    small ones keeps a large one waiting. Bytes may be given back in another thread.

    Args:
        limit: Bytes that may be held at the same time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def try_take(self, count: int) -> bool:
        """Take `count` bytes, or none where one would have to wait for them."""
        with self._changed:
            granted = not self._waiting and self._fits(count)
            if granted:
                self._held += count
            return granted

    def take(self, count: int) -> None:
        """Take `count` bytes; wait for them in line."""
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is turn and self._fits(count))
                self._held += count
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()

    def give(self, count: int) -> None:
        """Give back `count` bytes.

        Raises:
            ValueError: That is more than is held.
        """
        with self._changed:
            if count > self._held:
                raise ValueError(f"{count} bytes given back, but only {self._held} are held")
            self._held -= count
            self._changed.notify_all()

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Take `count` bytes for as long as the block runs."""
        self.take(count)
        try:
            yield
        finally:
            self.give(count)

    def _fits(self, count: int) -> bool:
        return self._held == 0 or self._held + count <= self._limit
