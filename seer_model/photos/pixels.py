"""Load a photo as a square array of pixels."""

import torch
from torch.nn import functional

from seer_model.photos.byte_budget import ByteBudget
from seer_model.photos.fetch import fetch_photo
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.source import PhotoSource
from seer_model.photos.square import Pixels, decode_square

__all__ = ["DECODING", "Pixels", "load_photo", "prepare_photo", "resize_square"]

DECODING = 3
"""Version of the pixels that a photo gives. Part of every backbone's digest, so increase it
whenever they change. 2: colour profiles are applied. 3: resized by torch instead of Pillow."""


def load_photo(
    source: PhotoSource,
    size: int,
    limits: PhotoLimits,
    memory: ByteBudget | None = None,
) -> Pixels:
    """Fetch and prepare a photo, see `fetch_photo` and `prepare_photo`.

    Raises:
        PhotoRejected: The photo cannot be used.
    """
    return prepare_photo(fetch_photo(source, limits), size, limits, memory)


def prepare_photo(
    data: bytes,
    size: int,
    limits: PhotoLimits,
    memory: ByteBudget | None = None,
) -> Pixels:
    """Decode a photo, resize its short side to `size` and crop the centre.

    Only the pixels of the centre crop are resampled. The filter is antialiased bilinear (a
    triangle as wide as the reduction), the default of torchvision's `Resize`, computed by torch
    on uint8: within a few levels of Pillow's, in less than half the time. A square at least four
    times too large is first reduced by Pillow's box filter.

    Args:
        data: The encoded photo.
        size: Side of the square, in pixels.
        limits: See `decode_photo`.
        memory: Bounds the memory of all threads that decode. Reserved until the photo is resized.

    Returns:
        Pixels of shape (size, size, 3).

    Raises:
        PhotoRejected: See `decode_photo`.
    """
    with decode_square(data, size, limits, memory) as square:
        return resize_square(square.pixels, size)


def resize_square(square: Pixels, size: int) -> Pixels:
    """Resize the pixels that `decode_square` yields, the second half of `prepare_photo`."""
    batch = torch.from_numpy(square).unsqueeze(0).permute(0, 3, 1, 2)
    resized = functional.interpolate(batch, (size, size), mode="bilinear", antialias=True)
    pixels: Pixels = resized.permute(0, 2, 3, 1).squeeze(0).contiguous().numpy()
    return pixels
