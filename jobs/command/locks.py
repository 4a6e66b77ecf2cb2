"""Lock files (`flock`): a lock ends with the process that holds it, however that process ends."""

import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from schemas.errors import PartitionBusy

__all__ = ["take_lock"]


def take_lock(file: Path, name: str, holder: str | None) -> TextIO:
    """Take a lock without waiting for it; closing the returned file releases it.

    Args:
        file: The lock file, created if missing.
        name: What is locked, for the error message.
        holder: Who takes the lock, alone. The file tells it to those who are refused. None takes
            the lock shared with others who also pass None.

    Raises:
        PartitionBusy: Another run holds the lock.
        OSError: The file cannot be opened or locked.
    """
    lock = file.open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, (fcntl.LOCK_EX if holder else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        # Sharers leave the file empty, so that nobody is told of a holder that is gone.
        lock.truncate(0)
        if holder:
            lock.write(f"{holder}, process {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
    except BlockingIOError:
        lock.seek(0)
        other = lock.read().strip() or "another run"
        lock.close()
        raise PartitionBusy(
            f"{name} is held by {other}; wait for it to end and run again"
        ) from None
    except BaseException:
        lock.close()
        raise
    return lock
