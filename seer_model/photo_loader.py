"""Photos from their sources to pixels, many at a time, in order, and never more than the limits."""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from schemas.rejects import RejectReason
from seer_model.byte_budget import ByteBudget
from seer_model.photo_source import PhotoSource, fetch_photo
from seer_model.photos import PhotoLimits, PhotoRejected
from seer_model.runtime import Pixels

__all__ = ["Loaded", "PhotoLoader"]

Loaded = Pixels | RejectReason
"""A photo as `prepare_photo` makes it, or why it cannot be used."""

_READERS = 16
_LOWEST_PRIORITY = 19


class PhotoLoader:
    """Threads that read photos from their addresses, and threads that decode them.

    Args:
        decode: Makes pixels of a photo whose bytes are there, or raises `PhotoRejected`.
        decode_threads: Photos decoded at the same time.
        limits: Limits on photos, and on the memory they take together.
    """

    def __init__(
        self,
        decode: Callable[[PhotoSource], Pixels],
        *,
        decode_threads: int,
        limits: PhotoLimits,
    ) -> None:
        self._decode_photo = decode
        self._limits = limits
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
        self._decoders = ThreadPoolExecutor(
            decode_threads, thread_name_prefix="decode", initializer=_give_way
        )

    def load(self, sources: Iterable[PhotoSource], *, ahead: int) -> Generator[Loaded, None, None]:
        """Load photos in their order.

        Args:
            sources: Photos; read on as photos are taken, no more than `ahead` of them.
            ahead: Photos under way at a time.

        Closing the generator drops the photos that no thread has begun with.
        """
        encoded = ByteBudget(self._limits.max_encoded_memory)
        dropped = threading.Event()
        under_way: deque[_Photo] = deque()
        try:
            for source in sources:
                # How large a photo behind an address is shows only once it is read.
                held = self._limits.max_bytes if source.data is None else len(source.data)
                while len(under_way) >= ahead or not encoded.try_take(held):
                    yield under_way.popleft().loaded.result()
                photo = _Photo(encoded, held, dropped)
                under_way.append(photo)
                if source.uri is None:
                    self._decoders.submit(self._decode, photo, source)
                else:
                    self._readers.submit(self._read, photo, source)
            while under_way:
                yield under_way.popleft().loaded.result()
        finally:
            dropped.set()

    def close(self) -> None:
        """Wait for the photos that are being decoded, and decode no more."""
        self._decoders.shutdown(cancel_futures=True)

    def _read(self, photo: "_Photo", source: PhotoSource) -> None:
        if photo.dropped.is_set():
            return
        try:
            data = fetch_photo(source, self._limits)
        except BaseException as error:
            photo.fail(error)
            return
        photo.shrink(len(data))
        self._decoders.submit(self._decode, photo, PhotoSource(None, data))

    def _decode(self, photo: "_Photo", source: PhotoSource) -> None:
        if photo.dropped.is_set():
            return
        try:
            pixels = self._decode_photo(source)
        except BaseException as error:
            photo.fail(error)
        else:
            photo.settle(pixels)


def _give_way() -> None:
    """Let this thread run in the time that the model leaves.

    On a CPU the two share the task's cores. Taking turns every few milliseconds they displace each
    other's data from the caches, which takes 4% longer than whole batches in turn.
    """
    if sys.platform == "linux":  # Elsewhere a priority is that of the whole process.
        with suppress(OSError):  # Where a sandbox does not allow it, it is slower, and no error.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)


class _Photo:
    """A photo under way, and the bytes it holds until it is loaded."""

    def __init__(self, encoded: ByteBudget, held: int, dropped: threading.Event) -> None:
        self._encoded = encoded
        self._held = held
        self.dropped = dropped
        self.loaded: Future[Loaded] = Future()

    def shrink(self, held: int) -> None:
        self._encoded.give(self._held - held)
        self._held = held

    def settle(self, loaded: Loaded) -> None:
        # In this order: whoever has waited for this photo may need its bytes for the next.
        self._encoded.give(self._held)
        self.loaded.set_result(loaded)

    def fail(self, error: BaseException) -> None:
        if isinstance(error, PhotoRejected):
            self.settle(error.reason)
        else:
            self.loaded.set_exception(error)
