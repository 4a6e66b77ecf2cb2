"""The threads of `PhotoLoader`. Order, backpressure and cancellation: see `test_embedder`."""

import os
import sys
import threading
from contextlib import closing

import numpy as np

from seer_model.photos.limits import PhotoLimits
from seer_model.photos.loader import PhotoLoader
from seer_model.photos.pixels import Pixels
from seer_model.photos.source import PhotoSource


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_only_decoding_threads_have_the_lowest_priority() -> None:
    ours = priority()
    seen: list[int] = []

    def decode(source: PhotoSource) -> Pixels:
        seen.append(priority())
        return np.zeros((1, 1, 3), np.uint8)

    sources = [PhotoSource(None, b"a photo")] * 8
    with closing(PhotoLoader(decode_threads=2, limits=PhotoLimits())) as loader:
        assert len(list(loader.load(sources, decode, ahead=4))) == 8
    assert set(seen) == {19 if sys.platform == "linux" else ours}
    assert priority() == ours
