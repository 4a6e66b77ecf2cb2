"""A semaphore that counts bytes."""

import threading
from collections import deque

__all__ = ["ByteBudget"]


class ByteBudget:
    """An upper bound on the bytes that threads hold together; fair and thread-safe.

    Requests are granted first come, first served: one that would fit still waits behind earlier
    ones, so a stream of small requests cannot starve a large one. A request above the limit is
    granted once nothing else is held, so it cannot deadlock. Any thread may release bytes.

    Args:
        limit: Bytes that may be held at the same time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def try_acquire(self, count: int) -> bool:
        """Acquire `count` bytes if that is possible without waiting; return whether it was."""
        with self._changed:
            granted = not self._waiting and self._fits(count)
            if granted:
                self._held += count
            return granted

    def acquire(self, count: int) -> None:
        """Acquire `count` bytes, waiting in line for them."""
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is turn and self._fits(count))
                self._held += count
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()

    def release(self, count: int) -> None:
        """Return `count` bytes.

        Raises:
            ValueError: Fewer bytes are held.
        """
        with self._changed:
            if count > self._held:
                raise ValueError(f"cannot release {count} bytes: only {self._held} are held")
            self._held -= count
            self._changed.notify_all()

    def _fits(self, count: int) -> bool:
        return self._held == 0 or self._held + count <= self._limit
