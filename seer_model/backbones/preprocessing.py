"""What a backbone expects of its input."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from seer_model.files import Record

__all__ = ["Preprocessing", "PreprocessingRecord"]

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
