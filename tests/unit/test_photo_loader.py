"""What threads load photos, and how they stand to the others."""

import os
import sys
import threading
from contextlib import closing

import numpy as np

from seer_model.photo_loader import PhotoLoader
from seer_model.photo_source import PhotoSource
from seer_model.photos import PhotoLimits
from seer_model.runtime import Pixels


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_decoding_gives_way_to_the_model_and_nothing_else_does() -> None:
    ours = priority()
    seen: list[int] = []

    def decode(source: PhotoSource) -> Pixels:
        seen.append(priority())
        return np.zeros((1, 1, 3), np.uint8)

    sources = [PhotoSource(None, b"a photo")] * 8
    with closing(PhotoLoader(decode, decode_threads=2, limits=PhotoLimits())) as loader:
        assert len(list(loader.load(sources, ahead=4))) == 8
    assert set(seen) == {19 if sys.platform == "linux" else ours}
    assert priority() == ours
