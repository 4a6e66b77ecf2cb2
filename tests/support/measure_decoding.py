"""Measure what decoding takes, each time in a fresh fork of a process that knows the libraries.

    python -m tests.support.measure_decoding MODE=FOLDER ...

Modes: `square` prepares each photo of a folder at 224 pixels, `full` decodes each at full scale,
`threads` prepares them at once on eight threads that share a `ByteBudget`.

Prints a JSON object a line: name, outcome, CPU seconds, growth of the peak memory, memory that was
reserved, and size of the encoded photo, in bytes. A separate process, since a forked one starts
with its current memory as its peak, and a crash must not end the tests.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from seer_model.photos.byte_budget import ByteBudget
from seer_model.photos.decode import decode_reserved
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from seer_model.photos.pixels import prepare_photo
from tests.support.encoded_photos import FULL
from tests.support.photo_parts import png_with

SIZE = 224
LIMITS = PhotoLimits()
THREADS, THREADED_BUDGET = 8, 300_000_000


class RecordingBudget(ByteBudget):
    """A budget without limit that records what was requested."""

    def __init__(self) -> None:
        super().__init__(1 << 40)
        self.requests: list[int] = []

    def acquire(self, count: int) -> None:
        self.requests.append(count)
        super().acquire(count)


def square(path: Path) -> dict[str, object]:
    data, memory = path.read_bytes(), RecordingBudget()
    cost = measure(lambda: prepare_photo(data, SIZE, LIMITS, memory))
    return {"name": path.name, **cost, "reserved": sum(memory.requests), "size": len(data)}


def full(path: Path) -> dict[str, object]:
    data, memory = path.read_bytes(), RecordingBudget()

    def decode() -> None:
        with decode_reserved(data, FULL, LIMITS, memory):
            pass

    return {"name": path.name, **measure(decode), "reserved": sum(memory.requests)}


def threads(folder: Path) -> dict[str, object]:
    photos = [path.read_bytes() for path in sorted(folder.iterdir())]
    memory = ByteBudget(THREADED_BUDGET)

    def load_all() -> None:
        turns = [photos[number % len(photos)] for number in range(THREADS)]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda data: prepare_photo(data, SIZE, LIMITS, memory), turns))

    return {"name": folder.name, **measure(load_all)}


def measure(work: Callable[[], object]) -> dict[str, object]:
    before = resource.getrusage(resource.RUSAGE_SELF)
    try:
        work()
        outcome = "pixels"
    except PhotoRejected as rejected:
        outcome = rejected.reason.value
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "outcome": outcome,
        "seconds": seconds,
        "peak_growth": (after.ru_maxrss - before.ru_maxrss) * unit,
    }


def in_a_fork(work: Callable[[Path], dict[str, object]], path: Path) -> None:
    """Print what `work` returns; exit with status 1 if it crashes."""
    child = os.fork()
    if child == 0:
        prepare_photo(png_with(b""), SIZE, LIMITS)  # Touches the pages of the libraries.
        print(json.dumps(work(path)), flush=True)  # noqa: T201
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        sys.exit(f"{path.name}: exit {status}")


def main(arguments: list[str]) -> None:
    for argument in arguments:
        mode, _, place = argument.partition("=")
        if mode == "threads":
            in_a_fork(threads, Path(place))
            continue
        for path in sorted(Path(place).iterdir()):
            in_a_fork({"square": square, "full": full}[mode], path)


if __name__ == "__main__":
    main(sys.argv[1:])
