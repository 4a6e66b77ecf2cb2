"""A step of distillation: the trunk learns to give what a larger network gives, without labels.

The teacher looks at each crop as the photo has it, in its own size; the student at the same box,
smaller, recoloured and degraded (Beyer et al. 2022, Knowledge distillation: A good teacher is
patient and consistent, https://arxiv.org/abs/2106.05237: both must see the same crop).

On few photos the teacher takes most of the time. With `Recipe.teacher_epochs` it looks at the boxes
of that many epochs, and later epochs show the same boxes in the same order.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from seer_model.backbones.backbone import Backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.backbones.trunk import RegNetY
from seer_model.backbones.weights import make_backbone
from seer_model.training.precision import mixed_precision
from seer_model.training.pretraining.learner import Learner
from seer_model.training.pretraining.model import crop_features
from seer_model.training.pretraining.processes import Processes
from seer_model.training.pretraining.recipe import Recipe

__all__ = ["Distiller"]

_LEAST_DEVIATION = 1e-3


class Student(nn.Module):
    """Trunk, and a linear layer that predicts the teacher's features from the trunk's.

    Args:
        architecture: timm's name of a RegNetY.
        teacher_width: Length of the teacher's features.
        checkpoint_trunk: See `SwavModel`.
    """

    def __init__(self, architecture: str, teacher_width: int, *, checkpoint_trunk: bool) -> None:
        super().__init__()
        self.trunk = RegNetY(architecture)
        if checkpoint_trunk:
            self.trunk.checkpoint_blocks()
        self.predictor = nn.Linear(self.trunk.num_features, teacher_width)

    def forward(self, crops: Sequence[torch.Tensor]) -> torch.Tensor:
        """Predict the teacher's features.

        Args:
            crops: One (N, 3, size, size) tensor per crop.

        Returns:
            (crops * N, teacher width).
        """
        features: torch.Tensor = self.predictor(crop_features(self.trunk, crops))
        return features


class Distiller(Learner):
    """Learns what a teacher says of the photos.

    The loss is 1 - the cosine of predicted and true features, averaged over crops. The teacher's
    features are standardised first, by the moments of the batch: a network's pooled activations are
    all positive, so that their mean alone gives a high cosine. With `recipe.teacher_epochs`, four
    bytes for each crop of these epochs and each of the features stay in memory.

    Args:
        recipe: See `Learner`.
        processes: Likewise.
        teacher: The network to learn from.
        preprocessing: See `Learner`.
        device: Likewise.
        start: Likewise.

    Raises:
        SettingsError: The teacher cannot take photos of `recipe.teacher_size`.
    """

    def __init__(
        self,
        recipe: Recipe,
        processes: Processes,
        *,
        teacher: Backbone,
        preprocessing: Preprocessing,
        device: torch.device,
        start: Backbone | None = None,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            student = Student(
                recipe.architecture, teacher.width, checkpoint_trunk=recipe.checkpoint_trunk
            )
        self._remembered: dict[int, npt.NDArray[np.float32]] = {}
        super().__init__(
            student,
            student.trunk,
            recipe,
            processes,
            preprocessing=preprocessing,
            device=device,
            start=start,
        )
        self._teacher_size = recipe.teacher_size or teacher.preprocessing.image_size
        self._teacher = open_runtime(
            _resized(teacher, self._teacher_size),
            str(device),
            threads=torch.get_num_threads(),
            batch_size=recipe.batch_size // processes.count,
        )

    def order_of(self, epoch: int) -> int:
        """The epoch whose photos and boxes an epoch shows, in the same order."""
        return epoch % (self._recipe.teacher_epochs or self._recipe.epochs)

    def _loss(self, photos: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        recipe = self._recipe
        epoch, step = divmod(self._step, self._steps_per_epoch)
        shown = self.order_of(epoch) * self._steps_per_epoch + step
        pairs = self._crops.pairs(
            photos,
            self._random(~shown),
            generator,
            clean_size=0 if shown in self._remembered else self._teacher_size,
            batch=recipe.batch_size,
            first=self._processes.rank * len(photos),
        )
        with mixed_precision(self._device, recipe.bf16):
            predicted = self._connected([crops for crops, _ in pairs])
        taught = self._remembered.get(shown)
        if taught is None:
            taught = self._teach([clean for _, clean in pairs])
            if recipe.teacher_epochs is not None:
                self._remembered[shown] = taught
        target = self._standardise(torch.from_numpy(taught).to(self._device))
        return 1 - functional.cosine_similarity(predicted.float(), target, dim=1).mean()

    def _teach(self, crops: Sequence[torch.Tensor]) -> npt.NDArray[np.float32]:
        """The teacher's features of uint8 crops, (crops * N, teacher width)."""
        features = [self._teacher.start(crop.cpu().numpy())() for crop in crops]
        return np.concatenate(features)

    def _standardise(self, features: torch.Tensor) -> torch.Tensor:
        """Subtract the mean and divide by the standard deviation of the batch of all processes."""
        moments = torch.stack([features.mean(dim=0), features.square().mean(dim=0)])
        mean, square = self._processes.sum(moments) / self._processes.count
        deviation = (square - mean.square()).clamp(min=0).sqrt().clamp(min=_LEAST_DEVIATION)
        standardised: torch.Tensor = (features - mean) / deviation
        return standardised


def _resized(backbone: Backbone, image_size: int) -> Backbone:
    """The backbone for photos of another size: other features, and so another digest.

    Raises:
        SettingsError: The network cannot take photos of that size.
    """
    return make_backbone(
        backbone.architecture,
        replace(backbone.preprocessing, image_size=image_size),
        licence=backbone.licence,
        origin=backbone.origin,
        weights=backbone.weights,
        feature_stages=backbone.feature_stages,
    )
