"""RegNetY trunks, with features from one or more of their last stages.

Architectures are timm's (https://github.com/huggingface/pytorch-image-models, Apache-2.0).
"""

from functools import lru_cache
from typing import Any

import timm
import torch
from torch import nn
from torch.nn import functional

from schemas.errors import SettingsError
from seer_model.backbones.constants import STAGES
from seer_model.files import short_repr

__all__ = ["Trunk", "blueprint"]


class Trunk(nn.Module):
    """A RegNetY without its classifier, with random weights from torch's generator.

    (N, 3, H, W) in, (N, `num_features`) out. Weights have timm's names.

    Args:
        architecture: timm's name, such as `regnety_004`.
        feature_stages: How many of the last stages make up the features: their globally averaged
            channels, the earliest stage first. timm and SEER use 1. Earlier stages add colour and
            texture, which a trunk pretrained on few photos loses on the way to its last stage.

    Raises:
        SettingsError: timm has no RegNetY of that name.
        ValueError: `feature_stages` is not 1 to 4.
    """

    def __init__(self, architecture: str, feature_stages: int = 1) -> None:
        super().__init__()
        if not architecture.startswith("regnety_") or not timm.is_model(architecture):
            known = ", ".join(timm.list_models("regnety_*"))
            raise SettingsError(f"unknown architecture {short_repr(architecture)}; known: {known}")
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


@lru_cache(maxsize=32)
def blueprint(architecture: str, feature_stages: int = 1) -> Trunk:
    """A trunk on the meta device: names, shapes and width, no memory. Shared, so do not change it.

    Raises:
        SettingsError: timm has no RegNetY of that name.
        ValueError: `feature_stages` is not 1 to 4.
    """
    with torch.device("meta"):
        return Trunk(architecture, feature_stages)
