"""From a photo's bytes to the numbers a backbone takes; what a bundle records of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

from schemas.errors import BundleError
from seer_model.byte_budget import ByteBudget
from seer_model.files import short_repr
from seer_model.photos import PhotoLimits, decoded_photo

__all__ = ["DECODING", "Preprocessing", "normalise", "prepare_photo"]

DECODING = 3
"""Which pixels a photo gives; raised whenever they change, as it is part of a backbone's digest.
2: colour profiles are applied. 3: resized by torch, not Pillow."""

_MAX_IMAGE_SIZE = 4096


@dataclass(frozen=True)
class Preprocessing:
    """What turns a photo into a backbone's input; it is part of the backbone's digest.

    Attributes:
        image_size: Side of the square input, in pixels.
        mean: Mean of each channel (red, green, blue), in units where white is 1. ImageNet's.
        std: Standard deviation of each channel, in the same units.
    """

    image_size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def to_json(self) -> dict[str, object]:
        """What `from_json` reads: numbers and lists of numbers under the attributes' names."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> "Preprocessing":
        """Read what `to_json` wrote.

        Raises:
            BundleError: A key is missing or unknown, or a value is of the wrong type or absurd.
        """
        if not isinstance(record, Mapping):
            raise BundleError(f"preprocessing: must be an object, not {short_repr(record)}")
        if record.keys() != {"image_size", "mean", "std"}:
            raise BundleError(
                "preprocessing: the keys must be image_size, mean and std, "
                f"not {short_repr(sorted(map(str, record)))}"
            )
        size = record["image_size"]
        if type(size) is not int or not 1 <= size <= _MAX_IMAGE_SIZE:
            raise BundleError(
                "preprocessing: image_size must be a whole number of pixels from 1 to "
                f"{_MAX_IMAGE_SIZE}, not {short_repr(size)}"
            )
        mean, std = _three_numbers(record, "mean"), _three_numbers(record, "std")
        if min(std) <= 0:
            raise BundleError(f"preprocessing: std must be above 0, not {list(std)}")
        return cls(size, mean, std)


def _three_numbers(record: Mapping[str, object], name: str) -> tuple[float, float, float]:
    value = record[name]
    if isinstance(value, list | tuple) and len(value) == 3:
        numbers = [float(x) for x in value if type(x) in (int, float) and 0 <= x <= 1]
        if len(numbers) == 3:
            return numbers[0], numbers[1], numbers[2]
    raise BundleError(
        f"preprocessing: {name} must be three numbers from 0 to 1, not {short_repr(value)}"
    )


def prepare_photo(
    data: bytes,
    preprocessing: Preprocessing,
    limits: PhotoLimits,
    memory: ByteBudget | None = None,
) -> npt.NDArray[np.uint8]:
    """Decode a photo, resize its short side to `image_size` and crop the centre.

    Both in one step: only the largest centred square is resampled. The interpolation is bilinear
    with antialiasing (a triangle filter as wide as the reduction), the one that torchvision's
    `Resize` defaults to, as torch computes it on bytes: within a few levels of Pillow's, in less
    than half of its time. Of a square four times too large or more, Pillow first averages whole
    blocks of pixels.

    Args:
        data: The encoded photo.
        preprocessing: `image_size` is what counts here; `mean` and `std` are for `normalise`.
        limits: Limits on the photo.
        memory: As `decode_photo` takes it; held until the photo is resized, which takes less.

    Returns:
        Pixels, uint8, of shape (image_size, image_size, 3): rows, columns, and red, green, blue.

    Raises:
        PhotoRejected: As `decode_photo` does.
    """
    size = preprocessing.image_size
    with decoded_photo(data, size, limits, memory) as image:
        square = _centre_square(image, size)
        del image  # Before the memory is given back.
        batch = torch.from_numpy(np.array(square)).unsqueeze(0).permute(0, 3, 1, 2)
        resized = functional.interpolate(batch, (size, size), mode="bilinear", antialias=True)
        pixels: npt.NDArray[np.uint8] = resized.permute(0, 2, 3, 1).squeeze(0).contiguous().numpy()
        return pixels


def _centre_square(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square, in whole pixels; at least twice `size` if it was reduced."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    factor = side // (2 * size)
    return image.reduce(factor, box) if factor > 1 else image.crop(box)


def normalise(batch: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Turn pixels into a backbone's input, on the device the batch is on.

    Args:
        batch: Pixels as `prepare_photo` returns them, uint8, of shape (N, H, W, 3).
        preprocessing: `mean` and `std` of each channel.

    Returns:
        `(pixel / 255 - mean) / std`, float32, of shape (N, 3, H, W), channels-last in memory.

    Raises:
        ValueError: The batch is of another dtype or shape.
    """
    if batch.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
        raise ValueError(
            f"a batch must be uint8 of shape (N, H, W, 3), not {batch.dtype} {tuple(batch.shape)}"
        )
    mean = torch.tensor(preprocessing.mean, device=batch.device) * 255
    std = torch.tensor(preprocessing.std, device=batch.device) * 255
    return batch.to(torch.float32).sub_(mean).div_(std).permute(0, 3, 1, 2)
