"""PDQ, the perceptual hash that trust-and-safety teams exchange: alike for photos that look alike.

Source: Meta, "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm" (2019). A
photo is averaged to 64 by 64 pixels of luma; of its discrete cosine transform, the 16 by 16 lowest
frequencies but the constant ones are compared with their median. Two hashes are compared by their
Hamming distance: of 256 bits, about 128 differ between unrelated photos. For photos of 64 pixels
and more on a side, the bits are those of Meta's own code (`pdqhash` 0.2.8 has no wheels).
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from seer_model.photos.frame import without_frame

__all__ = ["HASHED_BY", "HASH_BYTES", "PhotoHashes", "hash_photo", "perceptual_hash"]

HASH_BYTES = 32

HASHED_BY = "pdq 1"
"""Version of the hashes; increase it whenever they change, and photos are hashed again."""

_SIDE, _FREQUENCIES = 64, 16
_LEAST_SIDE = 5
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_MOST_QUALITY, _GRADIENT_UNIT = 100, 90

Pixels = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float32]


class PhotoHashes(NamedTuple):
    """What a photo is recognised by.

    Attributes:
        whole: Hash of the whole photo, 256 bits in 32 bytes, the most significant first, as PDQ is
            written in hexadecimal.
        unframed: Hash of the photo without its frame; None where it has none.
        quality: Of `whole`, from 0 to 100: below 50 a photo has too little in it to tell it by.
    """

    whole: bytes
    unframed: bytes | None
    quality: int


def hash_photo(pixels: Pixels) -> PhotoHashes:
    """Hash a photo, and what is inside its frame if it has one.

    Args:
        pixels: uint8, (rows, columns, 3).
    """
    whole, quality = perceptual_hash(pixels)
    inside = without_frame(pixels)
    unframed = None if inside is pixels else perceptual_hash(inside)[0]
    return PhotoHashes(whole, unframed, quality)


def perceptual_hash(pixels: Pixels) -> tuple[bytes, int]:
    """Hash what is given.

    Args:
        pixels: uint8, (rows, columns, 3). Of fewer than five rows or columns, the quality is 0.

    Returns:
        The hash and its quality, as in `PhotoHashes`.
    """
    if min(pixels.shape[:2]) < _LEAST_SIDE:
        return bytes(HASH_BYTES), 0
    small = _decimated(pixels.astype(np.float32) @ _LUMA)
    waves = _WAVES @ small @ _WAVES.T
    median = np.partition(waves.ravel(), waves.size // 2 - 1)[waves.size // 2 - 1]
    return np.packbits((waves > median).ravel()[::-1]).tobytes(), _quality(small)


def _decimated(luma: _Floats) -> _Floats:
    rows, columns = luma.shape
    filtered = _reduction(columns) @ (_reduction(rows) @ luma).T
    return np.ascontiguousarray(filtered.T, np.float32)


@lru_cache(maxsize=256)
def _reduction(length: int) -> sparse.csr_array:
    """Two passes of a box filter (Jarosz) and every so-manieth pixel, as one matrix.

    Sparse, so that no threads of BLAS are woken for it.

    Returns:
        float32, (64, length).
    """
    window = math.ceil(length / (2 * _SIDE))
    before, after = (window - 1) // 2, window // 2
    box = sparse.diags_array(
        [np.ones(1)] * window, offsets=range(-before, after + 1), shape=(length, length)
    ).tocsr()
    # A window is cut at the edges.
    box = sparse.diags_array(1 / box.sum(axis=1)) @ box
    kept = ((np.arange(_SIDE) + 0.5) * length / _SIDE).astype(int)
    return sparse.csr_array(box[kept] @ box, dtype=np.float32)


def _cosines() -> _Floats:
    frequency = np.arange(1, _FREQUENCIES + 1)[:, None]
    place = 2 * np.arange(_SIDE)[None, :] + 1
    waves = math.sqrt(2 / _SIDE) * np.cos(np.pi / (2 * _SIDE) * frequency * place)
    return np.asarray(waves, np.float32)


_WAVES = _cosines()


def _quality(small: _Floats) -> int:
    steps = [np.trunc(np.diff(small, axis=axis) * 100 / 255) for axis in (0, 1)]
    gradient = sum(int(np.abs(step).sum()) for step in steps)
    return min(gradient // _GRADIENT_UNIT, _MOST_QUALITY)
