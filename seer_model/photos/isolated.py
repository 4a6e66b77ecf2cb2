"""Decode in a child process, for photos that may crash the decoder.

Pillow's decoders are native code. A fault in one kills its process, and no `except` can catch it.
The photos that were in flight then are decoded again here, where the exit code of the child
process tells what to do with the photo. That process imports no torch, which takes two seconds:
resizing is left to the parent.
"""

import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import TypeVar

from schemas.rejects import RejectReason
from seer_model.photos.limits import PhotoRejected
from seer_model.photos.source import PhotoSource

__all__ = ["IsolatedDecoder"]

Loaded = TypeVar("Loaded")

# Not forked: in the child, a lock held by another thread of the parent would stay locked for ever.
_SPAWN = get_context("spawn")
_FAULTS = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
_REASON_OF_EXIT_CODE = {
    **{-fault: RejectReason.UNREADABLE for fault in _FAULTS},
    -signal.SIGKILL: RejectReason.READ_FAILED,
}


class IsolatedDecoder:
    """A child process that decodes one photo at a time, replaced whenever a photo crashes it.

    Not thread-safe. The process starts with the first photo, and ends on `close` or with its
    parent.
    """

    def __init__(self) -> None:
        self._child: tuple[SpawnProcess, Connection] | None = None

    def load(self, load: Callable[[PhotoSource], Loaded], source: PhotoSource) -> Loaded:
        """Load a photo in the child process.

        Args:
            load: Loads it, such as a `partial` of `load_square`; sent to the process by its name.
            source: The photo.

        Raises:
            PhotoRejected: The photo cannot be used; `UNREADABLE` if it crashed the process,
                `READ_FAILED` if the process was killed, as by the kernel when memory runs out.
            RuntimeError: The process ended in another way, which is not the photo's fault.
        """
        process, connection = self._child = self._child or self._start()
        try:
            connection.send((load, source))
            outcome: Loaded | Exception = connection.recv()
        except (EOFError, ConnectionError):
            process.join()
            code = process.exitcode
            self.close()
            if code not in _REASON_OF_EXIT_CODE:
                raise RuntimeError(f"the decoding process ended with code {code}") from None
            raise PhotoRejected(_REASON_OF_EXIT_CODE[code]) from None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            process, connection = self._child
            self._child = None
            connection.close()
            process.join()
            process.close()

    def _start(self) -> tuple[SpawnProcess, Connection]:
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        # Keep no copy of the child's end, so that its death closes the connection.
        theirs.close()
        return process, ours


def _serve(connection: Connection) -> None:
    """Decode photos in the child process until the parent closes the connection or ends."""
    while True:
        try:
            load, source = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            connection.send(load(source))
        except Exception as error:  # Raised again in the parent.
            connection.send(error)
