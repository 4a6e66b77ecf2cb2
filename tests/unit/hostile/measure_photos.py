"""Decodes each photo of a folder in a process of its own, and tells what that took.

    python -m tests.unit.hostile.measure_photos FOLDER

A JSON object a line: name, outcome, seconds of processor time, bytes of memory at the peak, and
bytes that were set aside for it.
"""

import json
import os
import resource
import sys
from pathlib import Path

from seer_model.byte_budget import ByteBudget
from seer_model.photos import PhotoLimits, PhotoRejected
from seer_model.preprocessing import Preprocessing, prepare_photo
from tests.unit.hostile.photo_parts import png_with


class Noted(ByteBudget):
    """Remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__(1 << 40)
        self.asked = 0

    def take(self, count: int) -> None:
        self.asked += count
        super().take(count)


def used() -> resource.struct_rusage:
    return resource.getrusage(resource.RUSAGE_SELF)


def peak(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(path: Path) -> dict[str, object]:
    prepare_photo(png_with(b""), Preprocessing(), PhotoLimits())  # The libraries' own pages.
    data, memory = path.read_bytes(), Noted()
    before = used()
    try:
        prepare_photo(data, Preprocessing(), PhotoLimits(), memory)
        outcome = "pixels"
    except PhotoRejected as rejected:
        outcome = rejected.reason.value
    after = used()
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    grown = peak(after) - peak(before)
    return {"name": path.name, "outcome": outcome, "seconds": seconds, "grown": grown,
            "held": memory.asked, "size": len(data)}  # fmt: skip


def main(folder: Path) -> int:
    """Returns 1 if one of the processes died."""
    for path in sorted(folder.iterdir()):
        child = os.fork()
        if child == 0:
            # A process just forked starts with the memory it has as its peak.
            print(json.dumps(measure(path)), flush=True)  # noqa: T201
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            print(f"{path.name}: exit {status}", file=sys.stderr)  # noqa: T201
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
