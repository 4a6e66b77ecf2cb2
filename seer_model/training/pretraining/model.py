"""SwAV's model: trunk, projection head and prototypes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from seer_model.backbones.trunk import RegNetY

__all__ = ["SwavModel", "SwavOutput", "crop_features"]


class SwavOutput(NamedTuple):
    """The model's output, one tensor per crop.

    Attributes:
        features: The trunk's output, (N, trunk width).
        embeddings: Unit vectors, float32, (N, embedding width).
        scores: Cosines of embeddings and prototypes, float32, (N, prototypes).
    """

    features: list[torch.Tensor]
    embeddings: list[torch.Tensor]
    scores: list[torch.Tensor]


class SwavModel(nn.Module):
    """Trunk, projection head and prototypes.

    Caron et al. 2020 (https://arxiv.org/abs/2006.09882), section 3 and appendix A; SEER (Goyal et
    al. 2021, https://arxiv.org/abs/2103.01988) has a RegNetY as its trunk, a projection of
    (8192, 8192, 256) and 16,000 prototypes.

    Args:
        architecture: timm's name of a RegNetY.
        projection: Widths of the projection's layers. Batch normalisation and ReLU follow each
            but the last; the last is the width of an embedding.
        prototypes: Number of prototypes K.
        checkpoint_trunk: Keep only each block's input for the backward pass and recompute the
            rest: much less memory, a third more time. Each batch then updates the running
            statistics of the trunk's batch normalisation twice.

    Raises:
        SettingsError: timm has no RegNetY of that name.
        ValueError: There is no projection or prototype, or a width is below 1.
    """

    def __init__(
        self,
        architecture: str,
        *,
        projection: Sequence[int],
        prototypes: int,
        checkpoint_trunk: bool = False,
    ) -> None:
        super().__init__()
        if not projection or min(*projection, prototypes) < 1:
            raise ValueError(
                "a projection needs widths of 1 or more, and there must be a prototype, not "
                f"{tuple(projection)} and {prototypes}"
            )
        self.trunk = RegNetY(architecture)
        if checkpoint_trunk:
            self.trunk.checkpoint_blocks()
        self.projection = _projection(self.trunk.num_features, projection)
        self.prototypes = nn.Linear(projection[-1], prototypes, bias=False)
        self.normalise_prototypes()

    def forward(self, crops: Sequence[torch.Tensor]) -> SwavOutput:
        """Compute features, embeddings and scores of all crops.

        The head runs once for all crops, so that its batch normalisation sees them together.
        Scores are float32 even under autocast, because Sinkhorn and the loss divide them by small
        numbers.

        Args:
            crops: Normalised photos, one (N, 3, size, size) tensor per crop, all with the same N.

        Raises:
            ValueError: There are no crops, or they hold different numbers of photos.
        """
        if len({len(crop) for crop in crops}) != 1:
            raise ValueError(
                "every crop must hold the same number of photos, not "
                f"{[len(crop) for crop in crops]}"
            )
        features = crop_features(self.trunk, crops)
        projected = self.projection(features)
        with torch.autocast(features.device.type, enabled=False):
            embeddings = functional.normalize(projected.float(), dim=1)
            scores = self.prototypes(embeddings)
        photos = len(crops[0])
        return SwavOutput(
            *(list(torch.split(rows, photos)) for rows in (features, embeddings, scores))
        )

    @torch.no_grad()
    def normalise_prototypes(self) -> None:
        """Scale the prototypes back to unit length; call before every step."""
        self.prototypes.weight.copy_(functional.normalize(self.prototypes.weight, dim=1))

    def drop_prototype_gradients(self) -> None:
        """Keep the next optimiser step from moving the prototypes.

        Call after the backward pass in the first steps, while assignments are noise (appendix
        A.2). Optimisers skip a parameter without a gradient, including its weight decay and
        momentum, and DistributedDataParallel sees the same graph in every step.
        """
        self.prototypes.weight.grad = None


def crop_features(trunk: nn.Module, crops: Sequence[torch.Tensor]) -> torch.Tensor:
    """The trunk's features of all crops, (crops * N, width), run once for each size of crops.

    Args:
        trunk: (N, 3, size, size) in, (N, width) out.
        crops: One (N, 3, size, size) tensor per crop.
    """
    by_size: dict[torch.Size, list[int]] = {}
    for index, crop in enumerate(crops):
        by_size.setdefault(crop.shape, []).append(index)
    features: dict[int, torch.Tensor] = {}
    for indices in by_size.values():
        output = trunk(torch.cat([crops[index] for index in indices]))
        features.update(zip(indices, output.chunk(len(indices)), strict=True))
    return torch.cat([features[index] for index in range(len(crops))])


def _projection(features: int, widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = features
    for width in widths[:-1]:
        layers += [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, widths[-1]))
