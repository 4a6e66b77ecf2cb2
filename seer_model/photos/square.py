"""Load a photo as its centred square, before it is resized.

Imports no torch, so that a process that only decodes starts in a third of a second.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import Image

from seer_model.photos.byte_budget import ByteBudget
from seer_model.photos.decode import decode_reserved
from seer_model.photos.fetch import fetch_photo
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.source import PhotoSource

__all__ = ["Pixels", "decode_square", "load_square"]

Pixels = npt.NDArray[np.uint8]
"""uint8 RGB; the last three axes are rows, columns and channels."""


def load_square(source: PhotoSource, size: int, limits: PhotoLimits) -> Pixels:
    """Fetch and decode a photo, see `fetch_photo` and `decode_square`.

    Raises:
        PhotoRejected: The photo cannot be used.
    """
    with decode_square(fetch_photo(source, limits), size, limits, None) as square:
        return square


@contextmanager
def decode_square(
    data: bytes, size: int, limits: PhotoLimits, memory: ByteBudget | None
) -> Iterator[Pixels]:
    """Decode a photo's largest centred square, with its memory reserved until the block ends.

    A square at least four times too large is reduced by Pillow's box filter, by a whole factor
    to no less than twice `size`.

    Args:
        data: The encoded photo.
        size: Side of the square that is wanted in the end, in pixels.
        limits: See `decode_photo`.
        memory: See `decode_reserved`.

    Raises:
        PhotoRejected: See `decode_photo`.
    """
    with decode_reserved(data, size, limits, memory) as image:
        square = np.array(_centre_square(image, size))
        del image  # Free it before its reservation is released.
        yield square


def _centre_square(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    factor = side // (2 * size)
    return image.reduce(factor, box) if factor > 1 else image.crop(box)
