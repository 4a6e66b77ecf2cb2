"""What the processor can do at best: decoding alone, and the model alone."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from benchmarks.measuring import Pieces, measure
from seer_model.backbone import Backbone, load_backbone
from seer_model.photos import PhotoLimits
from seer_model.preprocessing import prepare_photo
from seer_model.runtime import Pixels, Runtime, open_runtime

__all__ = ["CoreBounds"]

_LIMITS = PhotoLimits()


class CoreBounds:
    """A process of one thread for each core, all at work at once as the tasks of the job are.

    So they share the machine's memory and its clock rate as those do.

    Args:
        backbone: Folder of the backbone.
        photos: What to decode.
        cores: How many processes.
    """

    def __init__(self, backbone: Path, photos: Sequence[Path], cores: int) -> None:
        context = get_context("spawn")
        self._cores: list[Connection] = []
        for _ in range(cores):
            ours, theirs = context.Pipe()
            # Daemons, they end with this process.
            context.Process(target=_serve, args=(theirs, backbone, photos), daemon=True).start()
            self._cores.append(ours)
        for core in self._cores:
            core.recv()

    def rate(self, work: str, seconds: float) -> float:
        """Photos a second and core of `decode` or `model`."""
        for core in self._cores:
            core.send((work, seconds))
        return fmean(core.recv() for core in self._cores)


def _serve(requests: Connection, folder: Path, photos: Sequence[Path]) -> None:
    """Measure what is asked for, in a process of its own."""
    torch.set_num_threads(1)
    backbone = load_backbone(folder)
    encoded = [path.read_bytes() for path in photos]
    runtime = open_runtime(backbone)
    some = [prepare_photo(data, backbone.preprocessing, _LIMITS) for data in encoded[:8]]
    pixels = np.resize(np.stack(some), (runtime.batch_size, *some[0].shape))
    requests.send("ready")
    with suppress(EOFError):  # The benchmark is over.
        while True:
            work, seconds = requests.recv()
            decodes = work == "decode"
            pieces = _decoding(backbone, encoded) if decodes else _computing(runtime, pixels)
            requests.send(measure(pieces, seconds))


def _decoding(backbone: Backbone, encoded: Sequence[bytes]) -> Pieces:
    for data in cycle(encoded):
        prepare_photo(data, backbone.preprocessing, _LIMITS)
        yield 1


def _computing(runtime: Runtime, pixels: Pixels) -> Pieces:
    """A batch waits while one is computed, so that the model never does."""
    waiting = runtime.start(pixels)
    while True:
        following = runtime.start(pixels)
        waiting()
        waiting = following
        yield len(pixels)
