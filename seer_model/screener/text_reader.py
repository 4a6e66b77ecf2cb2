"""Read what is written in a photo: PP-OCRv6 (Apache-2.0), which RapidOCR ships, on OpenVINO."""

import logging
import threading
import warnings
from importlib.metadata import version
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from schemas.errors import SettingsError
from seer_model.backbones.embedder import TextLine
from seer_model.photos.square import Pixels

__all__ = ["READ_BY", "TextReader"]

SHORT_SIDE = 640
"""Pixels of a photo's short side when it is read: digits of a 40th of its height are legible."""

# A smaller photo is enlarged, unless it is very long: that would take long, too.
_ENLARGED_SIDE = 480
_ENLARGED_AREA = 2 * _ENLARGED_SIDE**2
_LEAST_SIDE, _MOST_SIDE = 16, 1 << 14
_LEAST_SCORE = 0.5
_VERSION = 1
READ_BY = f"rapidocr PP-OCRv6 small, {SHORT_SIDE} px, {_VERSION}"
"""Version of what is read; another one reads photos again."""


class TextReader:
    """Finds lines of text in photos and reads them; its models are opened with the first photo.

    Threads take turns.

    Args:
        threads: Threads to compute with.

    Raises:
        SettingsError: RapidOCR or OpenVINO is not installed.
    """

    short_side = SHORT_SIDE

    def __init__(self, *, threads: int = 1) -> None:
        self._threads = threads
        self._engine: Any = None
        self._turn = threading.Lock()
        for package in ("rapidocr", "openvino"):
            try:
                version(package)
            except ModuleNotFoundError as error:
                raise SettingsError(
                    f"text in photos cannot be read without {package}, which is not installed; "
                    "leave text rules out"
                ) from error

    def read(self, pixels: Pixels) -> list[TextLine]:
        """Read a photo.

        Args:
            pixels: uint8, (rows, columns, 3), at about the size that `load_whole` gives.

        Returns:
            Its lines from top to bottom; none of a photo of fewer than 16 rows or columns.
        """
        if min(pixels.shape[:2]) < _LEAST_SIDE:
            return []
        pixels = _enlarged(pixels)
        rows, columns = pixels.shape[:2]
        with self._turn:
            self._engine = self._engine or _open_engine(self._threads)
            found = self._engine(pixels[:, :, ::-1])
        if not found.txts:
            return []
        return [
            TextLine(line, float(score), min(1.0, _area(corners) / (rows * columns)))
            for line, score, corners in zip(found.txts, found.scores, found.boxes, strict=True)
            if line.strip()
        ]


def _enlarged(pixels: Pixels) -> Pixels:
    rows, columns = pixels.shape[:2]
    scale = min(_ENLARGED_SIDE / min(rows, columns), sqrt(_ENLARGED_AREA / (rows * columns)))
    if scale <= 1:
        return pixels
    size = round(columns * scale), round(rows * scale)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _open_engine(threads: int) -> Any:
    # Imported by whoever reads text alone: they take a second, and some platforms lack them.
    import cv2  # noqa: PLC0415
    from rapidocr import EngineType, RapidOCR  # noqa: PLC0415

    cv2.setNumThreads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.use_cls": False,
                "Global.text_score": _LEAST_SCORE,
                "Det.engine_type": EngineType.OPENVINO,
                # Sizes are chosen here.
                "Det.limit_type": "max",
                "Det.limit_side_len": _MOST_SIDE,
                "Global.max_side_len": _MOST_SIDE,
                "Cls.engine_type": EngineType.OPENVINO,
                "Rec.engine_type": EngineType.OPENVINO,
                "EngineConfig.openvino.inference_num_threads": threads,
            }
        )
    logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)
    return engine


def _area(corners: npt.NDArray[np.float32]) -> float:
    """Area of a quadrilateral, float32, (4, 2), by the shoelace formula."""
    x, y = np.asarray(corners, np.float64).T
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))
