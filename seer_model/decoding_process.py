"""Decoding in a process of its own, for photos that may bring down whatever decodes them.

Pillow's decoders are native code: one with a fault ends its process, and no `except` sees it. What
was under way when that happened is decoded here again, where the death of the process is the
photo's verdict.
"""

import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType

from schemas.rejects import RejectReason
from seer_model.photo_source import PhotoSource, load_photo
from seer_model.photos import PhotoLimits, PhotoRejected
from seer_model.preprocessing import Preprocessing
from seer_model.runtime import Pixels

__all__ = ["DecodingProcess"]

# Not forked: a copy of a process with threads may wait for ever for a lock that one of them held.
_SPAWN = get_context("spawn")


class DecodingProcess:
    """A process that decodes one photo after another, replaced whenever one of them ends it.

    For one thread. It is started with the first photo and gone when the block ends, or with the
    process that started it.

    Args:
        preprocessing: What the pixels are for.
        limits: Limits on photos.
    """

    def __init__(self, preprocessing: Preprocessing, limits: PhotoLimits) -> None:
        self._settings = (preprocessing, limits)
        self._running: tuple[SpawnProcess, Connection] | None = None

    def __enter__(self) -> "DecodingProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def load(self, source: PhotoSource) -> Pixels:
        """As `load_photo`.

        Raises:
            PhotoRejected: Also `UNREADABLE` where the photo ended the process, or `READ_FAILED`
                where it was killed from outside, as a machine does that has no memory left.
        """
        process, connection = self._running = self._running or self._start()
        try:
            connection.send(source)
            outcome: Pixels | Exception = connection.recv()
        except (EOFError, ConnectionError):
            process.join()
            killed = process.exitcode == -signal.SIGKILL
            self._stop()
            raise PhotoRejected(
                RejectReason.READ_FAILED if killed else RejectReason.UNREADABLE
            ) from None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _start(self) -> tuple[SpawnProcess, Connection]:
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_decode, args=(theirs, *self._settings), daemon=True)
        process.start()
        # The last copy of this end, so that its death is seen at the other.
        theirs.close()
        return process, ours

    def _stop(self) -> None:
        if self._running is not None:
            process, connection = self._running
            self._running = None
            connection.close()
            process.join()
            process.close()


def _decode(connection: Connection, preprocessing: Preprocessing, limits: PhotoLimits) -> None:
    """What the process does, until whoever started it closes the connection or is gone."""
    while True:
        try:
            source = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            connection.send(load_photo(source, preprocessing, limits))
        except PhotoRejected as rejected:
            connection.send(rejected)
