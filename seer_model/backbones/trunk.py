"""Trunks: timm's networks without their classifier, pixels in, pooled features out.

Architectures are timm's (https://github.com/huggingface/pytorch-image-models, Apache-2.0). Only a
RegNetY, SEER's network, can give features of earlier stages too.
"""

from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import nn
from torch.nn import functional

from schemas.errors import SettingsError
from seer_model.backbones.constants import STAGES
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.files import short_repr

__all__ = [
    "RegNetY",
    "blueprint",
    "channel_levels",
    "check_photo_size",
    "make_trunk",
    "normalise",
    "published_preprocessing",
    "standardise",
    "width_of",
]

_REGNETY = "regnety_"
_MOST_NAMES = 8
_LONGEST = 100


def make_trunk(architecture: str, feature_stages: int = 1) -> nn.Module:
    """Make a trunk with random weights from torch's generator.

    (N, 3, H, W) in, (N, `width_of(trunk)`) out. Weights have timm's names.

    Args:
        architecture: timm's name without a tag, such as `regnety_004` or `vit_small_patch16_224`.
        feature_stages: How many of the last stages make up the features, see `RegNetY`; 1 for any
            other network.

    Raises:
        SettingsError: timm has no network of that name or cannot make it, or it has no stages to
            choose from.
        ValueError: `feature_stages` of a RegNetY is not 1 to 4.
    """
    _check_name(architecture)
    if architecture.startswith(_REGNETY):
        return RegNetY(architecture, feature_stages)
    if feature_stages != 1:
        raise SettingsError(
            f"{architecture}: cannot give features of {feature_stages} stages; only a RegNetY can"
        )
    try:
        network: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=0)
    except Exception as error:  # Of any kind: some networks need packages that are not there.
        raise SettingsError(f"{architecture}: timm cannot make it ({_reason(error)})") from error
    return network


def _check_name(architecture: str) -> None:
    # Without a prefix: timm would follow `hf-hub:` or `local-dir:` to other code and weights.
    if architecture.isidentifier() and timm.is_model(architecture):
        return
    close = ", ".join(get_close_matches(architecture[:_LONGEST], timm.list_models(), _MOST_NAMES))
    raise SettingsError(
        f"unknown architecture {short_repr(architecture)}; "
        + (f"similar names: {close}" if close else "timm.list_models() has the names")
    )


class RegNetY(nn.Module):
    """SEER's network, with features from one or more of its last stages.

    Args:
        architecture: timm's name, such as `regnety_004`.
        feature_stages: How many of the last stages make up the features: their globally averaged
            channels, the earliest stage first. timm and SEER use 1. Earlier stages add colour and
            texture, which a trunk pretrained on few photos loses on the way to its last stage.

    Attributes:
        num_features: Length of a feature vector.

    Raises:
        SettingsError: timm has no RegNetY of that name.
        ValueError: `feature_stages` is not 1 to 4.
    """

    def __init__(self, architecture: str, feature_stages: int = 1) -> None:
        super().__init__()
        _check_name(architecture)
        if not architecture.startswith(_REGNETY):
            raise SettingsError(f"{architecture}: not a RegNetY, the only trunk to pretrain")
        if not 1 <= feature_stages <= STAGES:
            raise ValueError(f"feature_stages is {feature_stages}, expected 1 to {STAGES}")
        regnet: Any = timm.create_model(architecture, pretrained=False, num_classes=0)
        self.stem: nn.Module = regnet.stem
        self.s1: nn.Module = regnet.s1
        self.s2: nn.Module = regnet.s2
        self.s3: nn.Module = regnet.s3
        self.s4: nn.Module = regnet.s4
        self._first = STAGES - feature_stages
        widths = [int(stage["num_chs"]) for stage in regnet.feature_info[-STAGES:]]
        self.num_features = sum(widths[self._first :])

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Compute the features."""
        maps = self.stem(photos)
        pooled = []
        for number, stage in enumerate(self._stages()):
            maps = stage(maps)
            if number >= self._first:
                pooled.append(functional.adaptive_avg_pool2d(maps, 1).flatten(1))
        return torch.cat(pooled, 1) if len(pooled) > 1 else pooled[0]

    def checkpoint_blocks(self) -> None:
        """Save memory in training: keep each block's input, recompute the rest going backward."""
        for stage in self._stages():
            stage.grad_checkpointing = True  # type: ignore[assignment]

    def _stages(self) -> tuple[nn.Module, ...]:
        return self.s1, self.s2, self.s3, self.s4


def width_of(trunk: nn.Module) -> int:
    """Length of a trunk's feature vector."""
    if isinstance(trunk, RegNetY):
        return trunk.num_features
    width: int = trunk.head_hidden_size  # type: ignore[assignment]
    return width


def normalise(batch: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Turn pixels into a backbone's input, on the batch's device.

    Args:
        batch: See `standardise`.
        preprocessing: Has the `mean` and `std` of each channel.

    Returns:
        `(pixel / 255 - mean) / std`, see `standardise`.

    Raises:
        ValueError: The batch has another dtype or shape.
    """
    return standardise(batch, *channel_levels(preprocessing, batch.device))


def channel_levels(
    preprocessing: Preprocessing, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel on a device, where white is 255."""
    mean = torch.tensor(preprocessing.mean, device=device) * 255
    std = torch.tensor(preprocessing.std, device=device) * 255
    return mean, std


def standardise(batch: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Subtract the channels' means from pixels, and divide by their deviations.

    Args:
        batch: Pixels from `prepare_photo`, uint8, of shape (N, H, W, 3).
        mean: Of each channel, where white is 255.
        std: Likewise.

    Returns:
        float32, of shape (N, 3, H, W), channels-last in memory.

    Raises:
        ValueError: The batch has another dtype or shape.
    """
    if batch.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
        raise ValueError(
            f"a batch must be uint8 of shape (N, H, W, 3), not {batch.dtype} {tuple(batch.shape)}"
        )
    return batch.to(torch.float32).sub_(mean).div_(std).permute(0, 3, 1, 2)


@lru_cache(maxsize=32)
def blueprint(architecture: str, feature_stages: int = 1) -> nn.Module:
    """A trunk on the meta device: names, shapes and width, no memory. Shared, so do not change it.

    Raises:
        SettingsError: timm has no network of that name, or it has no stages to choose from.
        ValueError: `feature_stages` is not 1 to 4.
    """
    with torch.device("meta"):
        return make_trunk(architecture, feature_stages).eval()


@lru_cache(maxsize=32)
def check_photo_size(architecture: str, size: int) -> None:
    """Check that a trunk takes photos of a size and gives one vector for each.

    A RegNetY does. Many vision transformers take a single size, and some networks do not pool.

    Args:
        architecture: timm's name.
        size: Side of the photos, in pixels.

    Raises:
        SettingsError: It does not, or timm has no network of that name.
    """
    trunk = blueprint(architecture)
    if isinstance(trunk, RegNetY):
        return
    try:
        with torch.no_grad():
            found = tuple(trunk(torch.zeros(1, 3, size, size, device="meta")).shape)
    except Exception as error:  # timm asserts, torch and einsum raise.
        raise SettingsError(
            f"{architecture}: cannot take photos of {size} x {size} pixels ({_reason(error)}); "
            f"its own size is {_published(architecture).input_size[1]}"
        ) from error
    if found != (1, width_of(trunk)):
        raise SettingsError(
            f"{architecture}: gives {found} for a photo, not one vector of features"
        )


def published_preprocessing(name: str) -> Preprocessing:
    """Preprocessing of the weights that timm publishes.

    Args:
        name: timm's `ARCHITECTURE.TAG`, or an architecture for those of its first tag.

    Raises:
        SettingsError: They do not take square photos in colour.
    """
    published = _published(name)
    channels, height, width = published.input_size
    if channels != 3 or height != width:
        raise SettingsError(
            f"{name}: takes {channels} x {height} x {width} values, not square photos in colour"
        )
    return Preprocessing(height, tuple(published.mean), tuple(published.std))


def _published(name: str) -> Any:
    return timm.get_pretrained_cfg(name)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
