"""What a backbone expects of its input, and the step from pixels to that input."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from seer_model.files import Record

__all__ = ["Preprocessing", "PreprocessingRecord", "normalise"]

_MAX_IMAGE_SIZE = 4096


@dataclass(frozen=True)
class Preprocessing:
    """Size and normalisation of a backbone's input; part of the backbone's digest.

    Attributes:
        image_size: Side of the square input, in pixels.
        mean: Mean of each channel (red, green, blue), where white is 1. ImageNet's by default.
        std: Standard deviation of each channel, in the same units.
    """

    image_size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


Mean = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]


class PreprocessingRecord(Record):
    """A `Preprocessing` in `backbone.json`: every key is required, every value in range."""

    image_size: Annotated[int, Field(ge=1, le=_MAX_IMAGE_SIZE)]
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]


def normalise(batch: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Turn pixels into a backbone's input, on the batch's device.

    Args:
        batch: Pixels from `prepare_photo`, uint8, of shape (N, H, W, 3).
        preprocessing: Has the `mean` and `std` of each channel.

    Returns:
        `(pixel / 255 - mean) / std`, float32, of shape (N, 3, H, W), channels-last in memory.

    Raises:
        ValueError: The batch has another dtype or shape.
    """
    if batch.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
        raise ValueError(
            f"a batch must be uint8 of shape (N, H, W, 3), not {batch.dtype} {tuple(batch.shape)}"
        )
    mean = torch.tensor(preprocessing.mean, device=batch.device) * 255
    std = torch.tensor(preprocessing.std, device=batch.device) * 255
    return batch.to(torch.float32).sub_(mean).div_(std).permute(0, 3, 1, 2)
