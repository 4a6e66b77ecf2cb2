"""What a core can do of one kind of work alone: decoding, the model, colours, reading text."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.measuring import Pieces, measure
from seer_model.backbones.backbone import load_backbone
from seer_model.backbones.runtimes.base import Runtime
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.photos.colours import subject_colours
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.pixels import Pixels, prepare_photo
from seer_model.photos.source import PhotoSource
from seer_model.photos.square import load_whole
from seer_model.screener.text_reader import TextReader
from tests.support.written_photos import write_on

__all__ = ["CoreBounds"]

_LIMITS = PhotoLimits()
_WRITTEN = 8
_TEXT_SHARE = 0.05


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
        """Measure `decode`, `model`, `colours` or `text`; returns photos per second and core."""
        for core in self._cores:
            core.send((work, seconds))
        return fmean(core.recv() for core in self._cores)


def _serve(requests: Connection, folder: Path, photos: Sequence[Path]) -> None:
    """Serve measurements from a child process until the pipe closes."""
    torch.set_num_threads(1)
    backbone = load_backbone(folder)
    encoded = [path.read_bytes() for path in photos]
    size = backbone.preprocessing.image_size
    runtime = open_runtime(backbone)
    some = [prepare_photo(data, size, _LIMITS) for data in encoded[:8]]
    pixels = np.resize(np.stack(some), (runtime.batch_size, *some[0].shape))
    reader = TextReader()
    works: dict[str, Callable[[], Pieces]] = {
        "decode": lambda: _each(lambda data: prepare_photo(data, size, _LIMITS), encoded),
        "model": lambda: _computing(runtime, pixels),
        "colours": lambda: _each(subject_colours, some),
        "text": lambda: _each(partial(_read_text, reader), _written(photos[:_WRITTEN])),
    }
    requests.send("ready")
    with suppress(EOFError):  # The parent is done.
        while True:
            work, seconds = requests.recv()
            requests.send(measure(works[work](), seconds))


def _each(work: Callable[[Any], object], photos: Sequence[Any]) -> Pieces:
    for photo in cycle(photos):
        work(photo)
        yield 1


def _read_text(reader: TextReader, data: bytes) -> None:
    reader.read(load_whole(PhotoSource(None, data), reader.short_side, _LIMITS))


def _written(photos: Sequence[Path]) -> list[bytes]:
    """The photos with a line of text on each."""
    written = []
    for number, path in enumerate(photos):
        with Image.open(path) as image:
            written.append(write_on(image, f"call 0170 55{number:03}", _TEXT_SHARE, number))
    return written


def _computing(runtime: Runtime, pixels: Pixels) -> Pieces:
    """Keep one batch queued while another is computed, so that the model never idles."""
    waiting = runtime.start(pixels)
    while True:
        following = runtime.start(pixels)
        waiting()
        waiting = following
        yield len(pixels)
