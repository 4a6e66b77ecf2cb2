"""Load photos in parallel: fetched and decoded ahead, returned in order, with backpressure."""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

from schemas.rejects import RejectReason
from seer_model.photos.byte_budget import ByteBudget
from seer_model.photos.fetch import fetch_photo
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from seer_model.photos.source import PhotoSource

__all__ = ["PhotoLoader"]

Decoded = TypeVar("Decoded")

_FETCH_THREADS = 16
_LOWEST_PRIORITY = 19


class PhotoLoader:
    """A pool of threads that fetch photos, and a pool of threads that decode them.

    Args:
        decode_threads: Photos decoded at the same time.
        limits: Limits on each photo, and on the encoded bytes in flight.
    """

    def __init__(self, *, decode_threads: int, limits: PhotoLimits) -> None:
        self._limits = limits
        self._fetchers = ThreadPoolExecutor(_FETCH_THREADS, thread_name_prefix="fetch")
        self._decoders = ThreadPoolExecutor(
            decode_threads, thread_name_prefix="decode", initializer=_lower_priority
        )

    def load(
        self,
        sources: Iterable[PhotoSource],
        decode: Callable[[PhotoSource], Decoded],
        *,
        ahead: int,
    ) -> Generator[Decoded | RejectReason, None, None]:
        """Load photos in order; one that cannot be used yields the reason.

        `sources` is read lazily: while `ahead` photos are in flight, or their encoded bytes reach
        `max_encoded_memory`, no more are taken. Closing the generator cancels the photos that no
        thread has started on.

        Args:
            sources: The photos.
            decode: Turns a photo whose bytes are present into its result, such as pixels, or raises
                `PhotoRejected`.
            ahead: Photos in flight at the same time.
        """
        encoded_budget = ByteBudget(self._limits.max_encoded_memory)
        cancelled = threading.Event()
        in_flight: deque[_InFlight[Decoded]] = deque()
        try:
            for source in sources:
                # The size of a photo behind an address is unknown until it is fetched.
                size = self._limits.max_bytes if source.data is None else len(source.data)
                while len(in_flight) >= ahead or not encoded_budget.try_acquire(size):
                    yield in_flight.popleft().loaded.result()
                photo = _InFlight(decode, encoded_budget, size, cancelled)
                in_flight.append(photo)
                if source.uri is None:
                    self._decoders.submit(self._decode, photo, source)
                else:
                    self._fetchers.submit(self._fetch, photo, source)
            while in_flight:
                yield in_flight.popleft().loaded.result()
        finally:
            cancelled.set()

    def close(self) -> None:
        """Cancel the photos that wait to be decoded, and wait for those being decoded."""
        self._decoders.shutdown(cancel_futures=True)

    def _fetch(self, photo: "_InFlight[Decoded]", source: PhotoSource) -> None:
        if photo.cancelled.is_set():
            return
        try:
            data = fetch_photo(source, self._limits)
        except BaseException as error:
            photo.fail(error)
            return
        photo.shrink(len(data))
        self._decoders.submit(self._decode, photo, PhotoSource(None, data))

    def _decode(self, photo: "_InFlight[Decoded]", source: PhotoSource) -> None:
        if photo.cancelled.is_set():
            return
        try:
            decoded = photo.decode(source)
        except BaseException as error:
            photo.fail(error)
        else:
            photo.finish(decoded)


class _InFlight(Generic[Decoded]):
    """A photo being loaded, and the encoded bytes reserved for it until it is loaded."""

    def __init__(
        self,
        decode: Callable[[PhotoSource], Decoded],
        budget: ByteBudget,
        reserved: int,
        cancelled: threading.Event,
    ) -> None:
        self.decode = decode
        self._budget = budget
        self._reserved = reserved
        self.cancelled = cancelled
        self.loaded: Future[Decoded | RejectReason] = Future()

    def shrink(self, reserved: int) -> None:
        self._budget.release(self._reserved - reserved)
        self._reserved = reserved

    def finish(self, outcome: Decoded | RejectReason) -> None:
        # Release first: whoever waits for this photo may need its bytes for the next one.
        self._budget.release(self._reserved)
        self.loaded.set_result(outcome)

    def fail(self, error: BaseException) -> None:
        if isinstance(error, PhotoRejected):
            self.finish(error.reason)
        else:
            self.loaded.set_exception(error)


def _lower_priority() -> None:
    """Give this thread the lowest priority, so that decoding fills the gaps of the model.

    On a CPU both share the cores of the task. If they alternate every few milliseconds, they evict
    each other's cache lines, which takes 4% longer than whole batches in turn.
    """
    if sys.platform == "linux":  # Elsewhere, this sets the priority of the whole process.
        with suppress(OSError):  # A sandbox may forbid it; loading is only slower then.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
