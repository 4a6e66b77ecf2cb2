"""Run other programs on this machine, and end them and all that they started."""

import os
import signal
import socket
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
SECONDS_TO_END = 20


def run(*command: object) -> None:
    """Run a command in the checkout, and exit with its code if it fails."""
    # A session of its own: of a Ctrl-C it sees only the signal that `end` sends.
    child = psutil.Popen([str(part) for part in command], cwd=ROOT, start_new_session=True)
    try:
        code = child.wait()
    finally:
        end([child])
    if code:
        sys.exit(code)


def end_on_signals() -> None:
    """Let SIGTERM, and SIGHUP of a closed terminal, end this as Ctrl-C does, whichever is first."""
    given = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # `nohup` ignores SIGHUP.
    numbers = [number for number in given if signal.getsignal(number) != signal.SIG_IGN]

    def stop(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, stop)


def end(started: Collection[psutil.Popen]) -> None:
    """End processes and all that they started.

    On SIGINT jobs, and the tasks that wait for them, clean up; what has not ended then is killed.
    """
    family: list[psutil.Process] = []
    for process in started:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            family += [process, *process.children(recursive=True)]
            os.killpg(process.pid, signal.SIGINT)
    for process in await_end(family):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    await_end(family)
    for process in started:
        process.wait()


def await_end(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Wait until processes have ended; returns those that have not in time."""
    deadline = time.monotonic() + SECONDS_TO_END
    while (alive := list(filter(is_alive, processes))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return alive


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; in a container without an init, those that ended stay as zombies."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def is_open(port: int) -> bool:
    """Whether something on this machine listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
