"""A device of any speed behind the runtime's interface, to see what feeding it costs."""

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from time import perf_counter, sleep

import numpy as np

from benchmarks.measuring import Pieces
from seer_model.embedder import PhotoEmbedder
from seer_model.photo_source import PhotoSource
from seer_model.preprocessing import Preprocessing
from seer_model.runtime import Features, Pixels

__all__ = ["SimulatedAccelerator", "embedded_photos"]

_WIDTH = 768


class SimulatedAccelerator:
    """See `seer_model.runtime.Runtime`: batches one after another, each in the time of its photos.

    As on a GPU, `start` queues a batch, and it is the device's clock that says when it is done.

    Args:
        preprocessing: What the photos are prepared with.
        batch_size: Photos a batch.
        speed: Photos a second; infinite for a device that costs nothing.
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
    """The photos again and again through an embedder, a batch a piece.

    Raises:
        ValueError: A photo could not be used.
    """
    embedded = embedder.embed(cycle(sources))
    try:
        while batch := list(islice(embedded, embedder.runtime.batch_size)):
            if any(photo.vector is None for photo in batch):
                raise ValueError("a photo of the benchmark was rejected")
            yield len(batch)
    finally:
        embedded.close()
