"""Load a photo as its centred square, before it is resized, or as a whole.

Imports no torch, so that a process that only decodes starts in a third of a second.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from seer_model.photos.byte_budget import ByteBudget
from seer_model.photos.decode import decode_reserved
from seer_model.photos.fetch import fetch_photo
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.perceptual_hash import PhotoHashes, hash_photo
from seer_model.photos.source import PhotoSource

__all__ = ["Pixels", "Square", "decode_square", "load_square", "load_whole"]

# The longest photo has as many pixels as one of twice its short side.
_MOST_SQUARES = 2

Pixels = npt.NDArray[np.uint8]
"""uint8 RGB; the last three axes are rows, columns and channels."""


class Square(NamedTuple):
    """A photo's square, and the hashes of the whole photo if they were asked for."""

    pixels: Pixels
    hashes: PhotoHashes | None


def load_square(
    source: PhotoSource, size: int, limits: PhotoLimits, *, hashed: bool = False
) -> Square:
    """Fetch and decode a photo, see `fetch_photo` and `decode_square`.

    Raises:
        PhotoRejected: The photo cannot be used.
    """
    with decode_square(fetch_photo(source, limits), size, limits, None, hashed=hashed) as square:
        return square


@contextmanager
def decode_square(
    data: bytes, size: int, limits: PhotoLimits, memory: ByteBudget | None, *, hashed: bool = False
) -> Iterator[Square]:
    """Decode a photo's largest centred square, with its memory reserved until the block ends.

    A square at least twice too large is reduced by Pillow's box filter, by a whole factor to no
    less than `size`.

    Args:
        data: The encoded photo.
        size: Side of the square that is wanted in the end, in pixels.
        limits: See `decode_photo`.
        memory: See `decode_reserved`.
        hashed: Hash the whole photo, too.

    Raises:
        PhotoRejected: See `decode_photo`.
    """
    with decode_reserved(data, size, limits, memory) as image:
        square = np.array(_centre_square(image, size))
        hashes = hash_photo(np.asarray(_reduced(image, size))) if hashed else None
        del image  # Free it before its reservation is released.
        yield Square(square, hashes)


def load_whole(
    source: PhotoSource, short_side: int, limits: PhotoLimits, memory: ByteBudget | None = None
) -> Pixels:
    """Fetch and decode a whole photo, scaled down to about the pixels that a text needs.

    Args:
        source: The photo.
        short_side: The most that its short side is to have, in pixels. A long photo has fewer.
        limits: See `decode_photo`.
        memory: See `decode_reserved`.

    Raises:
        PhotoRejected: The photo cannot be used.
    """
    with decode_reserved(fetch_photo(source, limits), short_side, limits, memory) as image:
        area = image.width * image.height
        scale = min(1.0, short_side / min(image.size), sqrt(_MOST_SQUARES * short_side**2 / area))
        width, height = (max(1, round(side * scale)) for side in image.size)
        return np.array(image.resize((width, height), Image.Resampling.BILINEAR))


def _reduced(image: Image.Image, size: int) -> Image.Image:
    factor = min(image.size) // (2 * size)
    return image.reduce(factor) if factor > 1 else image


def _centre_square(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    factor = side // size
    return image.reduce(factor, box) if factor > 1 else image.crop(box)
