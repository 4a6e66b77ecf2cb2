"""How a backbone is pretrained: every number that shapes the weights, and so goes into its card."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from schemas.errors import SettingsError
from seer_model.pretraining.crops import LARGE_CROPS, SMALL_CROPS

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """SwAV's settings. The defaults are SEER's (section 4.1) but for what its 512 GPUs imposed.

    Attributes:
        architecture: timm's name of a RegNetY.
        epochs: Passes over the photos.
        batch_size: Photos a step, over all processes together.
        photo_size: Side of the square a photo is decoded to, in pixels; crops are cut from it.
        large_size: Side of the large crops, in pixels.
        large_crops: Number of large crops, whose assignments the others predict.
        small_size: Side of the small crops, in pixels.
        small_crops: Number of small crops.
        large_scale: Least and greatest share of the photo that a large crop covers.
        small_scale: The same of a small crop. Larger shares make the task easier, and short
            trainings on few photos get further with them.
        colour_strength: Strength of the colour jitter; SEER's is 1. Less of it where kinds differ
            by colour, as fruit does.
        prototypes: Their number; some ten times the kinds of things in the photos.
        projection: Widths of the projection head; the last is the width of an embedding.
        temperature: Of the predictions.
        epsilon: Of Sinkhorn-Knopp: the smaller, the fewer prototypes share a photo.
        queue_length: Embeddings remembered, over all processes, for batches smaller than the number
            of prototypes; a multiple of the batch size, 0 for none.
        queue_from_epoch: The first epoch that uses the queue.
        frozen_prototypes_epochs: Share of an epoch, or epochs, for which prototypes do not move.
        optimiser: `larc`, as SEER's large batches need, or `adamw`, steadier with small ones.
        learning_rate: The highest.
        warmup_epochs: Epochs of linear warm-up; a cosine down to 0.1 % follows.
        weight_decay: Of matrices and kernels.
        bf16: Compute the trunk in bfloat16.
        checkpoint_trunk: Trade time for memory in the trunk.
        seed: Of weights, order and crops.

    Raises:
        SettingsError: A number is out of range.
    """

    architecture: str = "regnety_008"
    epochs: int = 100
    batch_size: int = 256
    photo_size: int = 256
    large_size: int = 224
    large_crops: int = 2
    small_size: int = 96
    small_crops: int = 4
    large_scale: tuple[float, float] = LARGE_CROPS.scale
    small_scale: tuple[float, float] = SMALL_CROPS.scale
    colour_strength: float = 1.0
    prototypes: int = 3000
    projection: tuple[int, ...] = (2048, 256)
    temperature: float = 0.1
    epsilon: float = 0.05
    queue_length: int = 0
    queue_from_epoch: int = 15
    frozen_prototypes_epochs: float = 1.0
    optimiser: Literal["larc", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    warmup_epochs: float = 5.0
    weight_decay: float = 0.05
    bf16: bool = True
    checkpoint_trunk: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        least_one = ("epochs", "batch_size", "photo_size", "large_size", "large_crops")
        for name in (*least_one, "prototypes"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.large_crops + self.small_crops < 2:
            raise SettingsError("there must be two crops or more")
        if self.queue_length < 0 or self.queue_length % self.batch_size:
            raise SettingsError(
                f"the queue must hold whole batches of {self.batch_size}, not {self.queue_length}"
            )
        for name in ("large_scale", "small_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise SettingsError(f"{name} must be two shares of a photo, not {low}, {high}")
        if self.epsilon <= 0:
            raise SettingsError(f"epsilon must be above 0, not {self.epsilon}")
        if self.warmup_epochs > self.epochs:
            raise SettingsError(f"{self.warmup_epochs} epochs of warm-up in {self.epochs} epochs")

    def to_json(self) -> dict[str, Any]:
        """The attributes by name, as JSON has them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
