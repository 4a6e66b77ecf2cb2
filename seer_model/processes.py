"""This process's scratch folder, and what killed processes left behind.

A process marks what it may leave behind: with its host, boot, PID namespace, PID and start time.
Whoever finds the mark later can tell for certain whether that process has ended; where it cannot,
because the mark is of another host or container, it takes it for alive.
"""

import atexit
import os
import shutil
import socket
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

__all__ = ["has_ended", "is_running", "process_mark", "scratch_folder"]

_MARK = "process"
_ENDED_STATES = "ZX"  # Zombie, dead.


def process_mark() -> str | None:
    """Return this process's mark; None where there is no /proc (macOS)."""
    try:
        return f"{_place()} {os.getpid()} {_state_and_start(os.getpid())[1]}"
    except OSError:
        return None


def has_ended(mark: str) -> bool:
    """Whether the process of a mark has certainly ended."""
    return _runs(mark) is False


def is_running(mark: str) -> bool:
    """Whether the process of a mark certainly runs."""
    return _runs(mark) is True


def _runs(mark: str) -> bool | None:
    """Whether the process of a mark runs; None where that is not known."""
    place, pid, start = ([""] * 3 + mark.rsplit(" ", 2))[-3:]
    try:
        if place != _place():
            return None
        os.kill(int(pid), 0)  # Unlike /proc, never hides the processes of other users.
        state, started = _state_and_start(int(pid))
    except ProcessLookupError:
        return False
    except (OSError, ValueError):
        return None
    return not (state in _ENDED_STATES or started != start)


def _place() -> str:
    """This host since it booted, and the container: within it a PID and a start time are unique."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"


def _state_and_start(pid: int) -> tuple[str, str]:
    """State and start time (clock ticks since boot) of a process, see proc_pid_stat(5)."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]


def scratch_folder() -> Path:
    """Return this process's folder for temporary files.

    It is removed at exit, or, if the process is killed, by the next one that makes such a folder.
    """
    return _make_scratch(os.getpid())


@lru_cache(maxsize=1)
def _make_scratch(pid: int) -> Path:
    _remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix="seer-"))
    atexit.register(_remove_scratch, folder, pid)
    if mark := process_mark():
        (folder / _MARK).write_text(mark, encoding="utf-8")
    return folder


def _remove_scratch(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # Not in a fork, which inherits the exit handler.
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned() -> None:
    for mark in Path(tempfile.gettempdir()).glob(f"seer-*/{_MARK}"):
        with suppress(OSError):
            ours = mark.lstat().st_uid == os.geteuid()
            if ours and has_ended(mark.read_text(encoding="utf-8", errors="replace")):
                shutil.rmtree(mark.parent, ignore_errors=True)
