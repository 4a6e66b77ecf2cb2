"""The upper bound that the processor sets: decoding alone, and the model alone."""

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
from seer_model.backbones.backbone import Backbone, load_backbone
from seer_model.backbones.runtimes.base import Runtime
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.pixels import Pixels, prepare_photo

__all__ = ["CoreBounds"]

_LIMITS = PhotoLimits()


class CoreBounds:
    """One single-threaded process per core, all busy at once.

    Like the job's tasks, they compete for memory bandwidth and clock rate.

    Args:
        backbone: Folder of the backbone.
        photos: Photos to decode.
        cores: Number of processes.
    """

    def __init__(self, backbone: Path, photos: Sequence[Path], cores: int) -> None:
        context = get_context("spawn")
        self._cores: list[Connection] = []
        for _ in range(cores):
            ours, theirs = context.Pipe()
            # Daemons: they end with this process.
            context.Process(target=_serve, args=(theirs, backbone, photos), daemon=True).start()
            self._cores.append(ours)
        for core in self._cores:
            core.recv()

    def rate(self, work: str, seconds: float) -> float:
        """Measure `decode` or `model`; returns photos per second and core."""
        for core in self._cores:
            core.send((work, seconds))
        return fmean(core.recv() for core in self._cores)


def _serve(requests: Connection, folder: Path, photos: Sequence[Path]) -> None:
    """Serve measurements from a child process until the pipe closes."""
    torch.set_num_threads(1)
    backbone = load_backbone(folder)
    encoded = [path.read_bytes() for path in photos]
    runtime = open_runtime(backbone)
    some = [prepare_photo(data, backbone.preprocessing.image_size, _LIMITS) for data in encoded[:8]]
    pixels = np.resize(np.stack(some), (runtime.batch_size, *some[0].shape))
    requests.send("ready")
    with suppress(EOFError):  # The parent is done.
        while True:
            work, seconds = requests.recv()
            decodes = work == "decode"
            pieces = _decoding(backbone, encoded) if decodes else _computing(runtime, pixels)
            requests.send(measure(pieces, seconds))


def _decoding(backbone: Backbone, encoded: Sequence[bytes]) -> Pieces:
    for data in cycle(encoded):
        prepare_photo(data, backbone.preprocessing.image_size, _LIMITS)
        yield 1


def _computing(runtime: Runtime, pixels: Pixels) -> Pieces:
    """Keep one batch queued while another is computed, so that the model never idles."""
    waiting = runtime.start(pixels)
    while True:
        following = runtime.start(pixels)
        waiting()
        waiting = following
        yield len(pixels)
