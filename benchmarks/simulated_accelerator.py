"""A simulated device of any speed behind the runtime interface, to measure feeding it."""

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from time import perf_counter, sleep

import numpy as np

from benchmarks.measuring import Pieces
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.runtimes.base import Features
from seer_model.photos.pixels import Pixels
from seer_model.photos.source import PhotoSource

__all__ = ["SimulatedAccelerator", "embedded_photos"]

_WIDTH = 768


class SimulatedAccelerator:
    """A `Runtime` that completes batches in order, at a fixed rate.

    As on a GPU, `start` queues a batch and returns at once; the batch completes later.

    Args:
        preprocessing: How photos are prepared.
        batch_size: Photos per batch.
        speed: Photos per second; infinite for a device that costs nothing.
    """

    def __init__(self, preprocessing: Preprocessing, *, batch_size: int, speed: float) -> None:
        self.name = "simulated"
        self.batch_size = batch_size
        self.width = _WIDTH
        self.preprocessing = preprocessing
        self._seconds = batch_size / speed
        self._free_at = 0.0
        self._features = np.zeros((batch_size, _WIDTH), np.float32)

    def start(self, pixels: Pixels) -> Callable[[], Features]:  # noqa: ARG002
        """See `Runtime.start`."""
        done_at = max(perf_counter(), self._free_at) + self._seconds
        self._free_at = done_at

        def wait() -> Features:
            if (left := done_at - perf_counter()) > 0:
                sleep(left)
            return self._features

        return wait


def embedded_photos(embedder: PhotoEmbedder, sources: Sequence[PhotoSource]) -> Pieces:
    """Embed the photos over and over; each piece is a batch.

    Raises:
        ValueError: A photo was rejected.
    """
    embedded = embedder.embed(cycle(sources))
    try:
        while batch := list(islice(embedded, embedder.runtime.batch_size)):
            if any(photo.vector is None for photo in batch):
                raise ValueError("a photo of the benchmark was rejected")
            yield len(batch)
    finally:
        embedded.close()
