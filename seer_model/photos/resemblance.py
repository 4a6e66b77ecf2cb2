"""Whether two photos are the same one, edited: compared pixel by pixel, at several scales.

The middle of one photo, and its mirror image, is searched in the other by normalised
cross-correlation (Lewis 1995, "Fast normalized cross-correlation"), both band-passed, so that
neither brightness nor smooth shading counts. Resizing, compression, a border, a crop and a change
of colour leave it high; another photo of the same goods does not reach it.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import fft
from scipy.ndimage import gaussian_filter

from seer_model.photos.square import Pixels

__all__ = ["SIDE", "Searchable", "as_grey", "resemblance"]

SIDE = 128
"""Side of the grey squares to compare, in pixels."""

_SEARCHED = 96
_MIDDLE = 0.6
_SCALES = (0.8, 0.84, 0.88, 0.92, 0.96, 1.0, 1.04, 1.085, 1.13, 1.18, 1.23)
_BLUR, _SHADING = 1.0, 4.0
# Of a flat area nothing can be found: a standard deviation below one grey level counts as one.
_LEAST_DEVIATION = 1.0

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

Grey = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float32]


def as_grey(pixels: Pixels) -> Grey:
    """The luma of pixels, uint8, (SIDE, SIDE, 3), as uint8, (SIDE, SIDE)."""
    return np.asarray((pixels @ _LUMA).round(), np.uint8)


class Searchable:
    """A photo that others are searched for in, and whose middle is searched for.

    Args:
        grey: uint8, (SIDE, SIDE).
    """

    def __init__(self, grey: Grey) -> None:
        image = Image.fromarray(grey)
        whole = _band_passed(image, _SEARCHED)
        self._spectrum = fft.rfft2(whole)
        self._sums = _integral(whole)
        self._squares = _integral(whole**2)
        self._middles = [
            middle
            for scale in _SCALES
            for middle in _middle_and_mirrored(_band_passed(image, round(_SEARCHED * scale)))
        ]

    def find_middle_of(self, other: "Searchable") -> float:
        """The best correlation with the middle of another photo, from -1 to 1."""
        best = -1.0
        for middle in other._middles:
            side = len(middle)
            last = _SEARCHED - side + 1
            spectrum = np.conj(fft.rfft2(middle, (_SEARCHED, _SEARCHED)))
            products = fft.irfft2(self._spectrum * spectrum, (_SEARCHED, _SEARCHED))[:last, :last]
            area = side * side
            variation = _boxes(self._squares, side) - _boxes(self._sums, side) ** 2 / area
            norm = np.sqrt(np.maximum(variation, area * _LEAST_DEVIATION**2))
            best = max(best, float((products / norm).max()))
        return best


def resemblance(first: Searchable, second: Searchable) -> float:
    """How much two photos resemble each other, from -1 to 1; the order does not matter."""
    return max(first.find_middle_of(second), second.find_middle_of(first))


def _band_passed(image: Image.Image, side: int) -> _Floats:
    resized = image.resize((side, side), Image.Resampling.BILINEAR)
    grey = np.asarray(resized, np.float32)
    return np.asarray(gaussian_filter(grey, _BLUR) - gaussian_filter(grey, _SHADING), np.float32)


def _middle_and_mirrored(photo: _Floats) -> list[_Floats]:
    """The middle, of mean 0 and norm 1, and its mirror image."""
    margin = round(len(photo) * (1 - _MIDDLE) / 2)
    middle = photo[margin : len(photo) - margin, margin : len(photo) - margin]
    middle = middle - middle.mean()
    middle = middle / max(float(np.linalg.norm(middle)), 1e-6)
    return [middle, middle[:, ::-1]]


def _integral(values: _Floats) -> npt.NDArray[np.float64]:
    """Sums over the rectangle from the corner to each point."""
    sums = np.zeros((len(values) + 1, len(values) + 1))
    sums[1:, 1:] = values.astype(np.float64).cumsum(0).cumsum(1)
    return sums


def _boxes(integral: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """Sums over all squares of a side."""
    low, high = slice(None, -side), slice(side, None)
    return integral[high, high] - integral[low, high] - integral[high, low] + integral[low, low]
