"""The practical upper bound: the job's work, hand-written in one process without Spark."""

import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import numpy as np

from benchmarks.measuring import Pieces
from seer_model.backbones.backbone import NETWORK_FILES, Backbone
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.pixels import Pixels, prepare_photo

# Disable OpenVINO's telemetry, as seer_model.backbones.runtimes.openvino does.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402

__all__ = ["HandWritten"]

_LIMITS = PhotoLimits()
_BATCH = 8
_AHEAD = 4 * _BATCH


class HandWritten:
    """A decode thread per core feeding one OpenVINO queue.

    Uses the network's file, and nothing of the package's pipeline: no bad photos, no order, no
    memory bound.

    Args:
        backbone: The backbone to run, with its network.
        cores: Decode threads, and OpenVINO's streams of one thread each.
    """

    def __init__(self, backbone: Backbone, cores: int) -> None:
        self._preprocessing = backbone.preprocessing
        self._threads = cores
        settings = {
            "NUM_STREAMS": cores,
            "INFERENCE_NUM_THREADS": cores,
            "ENABLE_CPU_PINNING": False,
        }
        assert backbone.network is not None
        network = openvino.Core().read_model(backbone.network / NETWORK_FILES[0])
        size = backbone.preprocessing.image_size
        network.reshape([_BATCH, size, size, 3])
        compiled = openvino.Core().compile_model(network, "CPU", settings)
        self._queue = openvino.AsyncInferQueue(compiled, 2 * cores)
        self._queue.set_callback(lambda request, _pixels: _vectors(request))

    def embedded(self, photos: Sequence[Path]) -> Pieces:
        """Embed the photos over and over; each piece is a batch."""
        size = self._preprocessing.image_size
        paths = cycle(photos)
        pool = ThreadPoolExecutor(self._threads)
        ahead = deque(pool.submit(self._prepare, next(paths)) for _ in range(_AHEAD))
        try:
            while True:
                pixels = np.empty((_BATCH, size, size, 3), np.uint8)
                for row in range(_BATCH):
                    pixels[row] = ahead.popleft().result()
                    ahead.append(pool.submit(self._prepare, next(paths)))
                # Blocks until a request is free; userdata keeps the pixels alive meanwhile.
                self._queue.start_async(pixels, userdata=pixels, share_inputs=True)
                yield _BATCH
        finally:
            pool.shutdown(cancel_futures=True)
            self._queue.wait_all()

    def _prepare(self, path: Path) -> Pixels:
        return prepare_photo(path.read_bytes(), self._preprocessing.image_size, _LIMITS)


def _vectors(request: openvino.InferRequest) -> bytes:
    features: bytes = request.get_output_tensor().data.astype(np.float16).tobytes()
    return features
