"""Pretraining settings that shape the weights; the card and every checkpoint record them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

__all__ = ["Recipe", "RecipeFlags"]

_Share = Annotated[float, Field(gt=0, le=1)]


class RecipeFlags(BaseModel):
    """The settings of a recipe that the pretraining job offers as flags.

    The defaults are SEER's (Goyal et al. 2021, https://arxiv.org/abs/2103.01988, section 4.1),
    except where SEER's depend on its 512 GPUs.
    """

    architecture: str = Field("regnety_008", description="timm's name of a RegNetY")
    epochs: int = Field(100, ge=1, description="passes over the photos")
    batch_size: int = Field(256, ge=1, description="photos a step, of all processes")
    photo_size: int = Field(256, ge=1, description="pixels that photos are decoded to")
    large_size: int = Field(224, ge=1, description="pixels of a large crop's side")
    small_size: int = Field(96, ge=1, description="pixels of a small crop's side")
    small_crops: int = Field(4, ge=0, description="small crops of each photo")
    large_scale: list[_Share] = Field(
        [0.14, 1.0],
        min_length=2,
        max_length=2,
        description="LOW,HIGH: share of a photo in a large crop",
    )
    # Larger shares make the task easier, which helps short trainings on few photos.
    small_scale: list[_Share] = Field(
        [0.05, 0.14],
        min_length=2,
        max_length=2,
        description="LOW,HIGH: share of a photo in a small crop",
    )
    colour_strength: float = Field(
        1.0, ge=0, le=1, description="of the colour jitter; less where kinds differ by colour"
    )
    degraded: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of crops turned, blurred, darkened or compressed as sellers' photos are",
    )
    teacher_size: int | None = Field(
        None, ge=32, description="pixels of the teacher's crops (default: what it was trained on)"
    )
    teacher_epochs: int | None = Field(
        None,
        ge=1,
        description="epochs with boxes of their own; later ones show these boxes again, recoloured "
        "and degraded anew, so that the teacher need not look again (default: all)",
    )
    prototypes: int = Field(
        3000, ge=2, description="some ten times the kinds of things in the photos"
    )
    projection: list[Annotated[int, Field(ge=1)]] = Field(
        [2048, 256], min_length=1, description="widths of the projection head, as 2048,256"
    )
    epsilon: float = Field(
        0.05, gt=0, description="of Sinkhorn-Knopp; smaller makes assignments sharper"
    )
    queue_length: int = Field(
        0, ge=0, description="embeddings remembered, for small batches; 0 for none"
    )
    optimiser: Literal["larc", "adamw"] = Field(
        "adamw", description="larc for batches of thousands, adamw for smaller ones"
    )
    learning_rate: float = Field(1e-3, gt=0, description="the highest")
    warmup_epochs: float = Field(5.0, ge=0, description="epochs of warm-up", validate_default=True)
    weight_decay: float = Field(0.05, ge=0, description="of weight matrices")
    bf16: bool | None = Field(
        None,
        description="compute the trunk in bfloat16 (default: if the device has instructions for "
        "it)",
    )
    checkpoint_trunk: bool = Field(False, description="less memory for more time in the trunk")
    seed: int = Field(0, ge=0, description="of weights, order and crops")

    @field_validator("large_scale", "small_scale")
    @classmethod
    def _is_a_range(cls, scale: list[float]) -> list[float]:
        low, high = scale
        if low > high:
            raise ValueError(f"the range is empty: {low} is above {high}")
        return scale

    @field_validator("queue_length")
    @classmethod
    def _is_whole_batches(cls, length: int, info: ValidationInfo) -> int:
        batch = info.data.get("batch_size", 1)
        if length % batch:
            raise ValueError(f"the queue must hold whole batches of {batch}, not {length}")
        return length

    @field_validator("warmup_epochs")
    @classmethod
    def _is_within_the_training(cls, warmup: float, info: ValidationInfo) -> float:
        epochs = info.data.get("epochs")
        if epochs is not None and warmup > epochs:
            raise ValueError(f"{warmup} epochs of warm-up in {epochs} epochs")
        return warmup


class Recipe(RecipeFlags):
    """SwAV's settings: those with a flag, and those that are hardly ever changed.

    Raises:
        pydantic.ValidationError: A setting is out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    large_crops: int = Field(
        2, ge=1, description="large crops of each photo, whose assignments all crops predict"
    )
    temperature: float = Field(0.1, gt=0, description="of the predictions")
    queue_from_epoch: int = Field(15, ge=0, description="first epoch that uses the queue")
    frozen_prototypes_epochs: float = Field(
        1.0, ge=0, description="epochs, or share of one, before the prototypes move"
    )

    @field_validator("large_crops")
    @classmethod
    def _is_two_with_the_small_ones(cls, large: int, info: ValidationInfo) -> int:
        if large + info.data.get("small_crops", 1) < 2:
            raise ValueError("a photo needs at least two crops")
        return large

    def to_json(self) -> dict[str, Any]:
        """The settings by name, as JSON values."""
        return self.model_dump(mode="json")
