"""Decoding in a process of its own, for photos that may bring down whatever decodes them.

Pillow's decoders are native code: one with a fault ends its process, and no `except` sees it. What
was under way when that happened is decoded here again, where the death of the process is the
photo's verdict.
"""

import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from schemas.rejects import RejectReason
from seer_model.photo_source import PhotoSource, load_photo
from seer_model.photos import PhotoLimits, PhotoRejected
from seer_model.preprocessing import Preprocessing
from seer_model.runtime import Pixels

__all__ = ["DecodingProcess"]

# Not forked: a copy of a process with threads may wait for ever for a lock that one of them held.
_SPAWN = get_context("spawn")
_FAULTS = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
_VERDICTS = {
    **{-fault: RejectReason.UNREADABLE for fault in _FAULTS},
    -signal.SIGKILL: RejectReason.READ_FAILED,
}
"""What a photo is that ended the process, by its exit code."""


class DecodingProcess:
    """A process that decodes one photo after another, replaced whenever one of them ends it.

    For one thread. It is started with the first photo, and ends when closed, or with the process
    that started it.

    Args:
        preprocessing: What the pixels are for.
        limits: Limits on photos.
    """

    def __init__(self, preprocessing: Preprocessing, limits: PhotoLimits) -> None:
        self._settings = (preprocessing, limits)
        self._running: tuple[SpawnProcess, Connection] | None = None

    def load(self, source: PhotoSource) -> Pixels:
        """As `load_photo`.

        Raises:
            PhotoRejected: Also `UNREADABLE` where the photo ended the process, or `READ_FAILED`
                where it was killed from outside, as a machine does that has no memory left.
            RuntimeError: It ended in another way, which is not the photo's doing.
        """
        process, connection = self._running = self._running or self._start()
        try:
            connection.send(source)
            outcome: Pixels | Exception = connection.recv()
        except (EOFError, ConnectionError):
            process.join()
            code = process.exitcode
            self.close()
            if code not in _VERDICTS:
                raise RuntimeError(f"the process that decodes ended with code {code}") from None
            raise PhotoRejected(_VERDICTS[code]) from None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self) -> None:
        """End the process."""
        if self._running is not None:
            process, connection = self._running
            self._running = None
            connection.close()
            process.join()
            process.close()

    def _start(self) -> tuple[SpawnProcess, Connection]:
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_decode, args=(theirs, *self._settings), daemon=True)
        process.start()
        # The last copy of this end, so that its death is seen at the other.
        theirs.close()
        return process, ours


def _decode(connection: Connection, preprocessing: Preprocessing, limits: PhotoLimits) -> None:
    """What the process does, until whoever started it closes the connection or is gone."""
    while True:
        try:
            source = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            connection.send(load_photo(source, preprocessing, limits))
        except Exception as error:  # Raised where it was asked for.
            connection.send(error)
