"""Coarse attributes of a photo, to see on which photos a model is worse."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from seer_model.photos.colours import subject_colours
from seer_model.photos.square import Pixels

__all__ = ["ATTRIBUTES", "MEASURED_SIDE", "photo_attributes"]

MEASURED_SIDE = 128
"""Side in pixels of the square that is measured, so that a photo's resolution plays no part."""

ATTRIBUTES = ("brightness", "sharpness", "object", "colour")
"""The names of the attributes."""

# Limits below which a value is low, and from which it is high. They leave between a twentieth and a
# third of the photos of groceries in shops, and of clothes at home, on either side of most.
_BRIGHTNESS = (90.0, 150.0)
_SHARPNESS = (350.0, 1200.0)
_OBJECT = (0.45, 0.75)

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_BORDER = 6
_UNLIKE_BORDER = 40

Floats = npt.NDArray[np.float32]


def photo_attributes(square: Pixels) -> dict[str, str]:
    """Measure a photo's centred square, as a model sees it.

    These are proxies, and say how a photo looks, not why: `sharpness` is low on a blurred photo and
    on a plain one; `object` takes for the object whatever is unlike the border.

    Args:
        square: Pixels of shape (side, side, 3), see `square.load_square`.

    Returns:
        By `ATTRIBUTES`:

        - `brightness`: mean luma (ITU-R BT.601): `dark`, `medium` or `bright`.
        - `sharpness`: variance of the luma's Laplacian (Pech-Pacheco et al. 2000): `low`, `medium`
          or `high`.
        - `object`: share of the pixels that differ from the median colour of the border by more
          than 40 of 255 in a channel: `small`, `medium` or `large`.
        - `colour`: the subject's main colour, see `subject_colours`.
    """
    side = (MEASURED_SIDE, MEASURED_SIDE)
    image = Image.fromarray(square).resize(side, Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.float32)
    luma = pixels @ _LUMA
    return {
        "brightness": _level(luma.mean(), _BRIGHTNESS, ("dark", "medium", "bright")),
        "sharpness": _level(_laplacian(luma).var(), _SHARPNESS, ("low", "medium", "high")),
        "object": _level(_unlike_border(pixels).mean(), _OBJECT, ("small", "medium", "large")),
        "colour": subject_colours(square)[0].name,
    }


def _level(value: float, limits: tuple[float, float], names: tuple[str, str, str]) -> str:
    return names[int(np.searchsorted(limits, value, side="right"))]


def _laplacian(luma: Floats) -> Floats:
    across = luma[1:-1, :-2] + luma[1:-1, 2:]
    return across + luma[:-2, 1:-1] + luma[2:, 1:-1] - 4 * luma[1:-1, 1:-1]


def _unlike_border(pixels: Floats) -> npt.NDArray[np.bool_]:
    inside = np.zeros(pixels.shape[:2], np.bool_)
    inside[_BORDER:-_BORDER, _BORDER:-_BORDER] = True
    border = np.median(pixels[~inside], axis=0)
    return np.asarray(np.abs(pixels - border).max(axis=2) > _UNLIKE_BORDER)
