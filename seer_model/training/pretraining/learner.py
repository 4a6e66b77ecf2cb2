"""What every way of learning shares: crops, optimiser, learning rate, and state for checkpoints."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from seer_model.backbones.backbone import Backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.training.pretraining.crops import CropSpec, MultiCrop
from seer_model.training.pretraining.monitor import CollapseReport
from seer_model.training.pretraining.optim import adamw, cosine_with_warmup, lars
from seer_model.training.pretraining.processes import Processes
from seer_model.training.pretraining.recipe import Recipe
from seer_model.training.pretraining.sync_batchnorm import with_sync_batchnorm

__all__ = ["Learner"]

_GREY = 0.2  # Share of the crops that SwAV, with all its colour jitter, makes grey.
_FINAL_RATE = 0.001  # Of the peak learning rate, at the end.


class Learner(ABC):
    """Model and optimiser of one process; all processes always have the same weights.

    Args:
        model: The model, with random weights from the recipe's seed.
        trunk: Its part that becomes the backbone.
        recipe: The settings.
        processes: The processes that train together.
        preprocessing: Its mean and standard deviation normalise the crops.
        device: This process's device.
        start: Initial weights of the trunk; None is random.

    Attributes:
        model: The model.
        trunk: Its part that becomes the backbone.
        optimiser: The optimiser of all weights.
    """

    def __init__(
        self,
        model: nn.Module,
        trunk: nn.Module,
        recipe: Recipe,
        processes: Processes,
        *,
        preprocessing: Preprocessing,
        device: torch.device,
        start: Backbone | None = None,
    ) -> None:
        self.trunk = trunk
        self.model = model
        self._recipe = recipe
        self._processes = processes
        self._device = device
        self._step = 0
        self._steps_per_epoch = 1
        self._crops = MultiCrop(
            [
                CropSpec(recipe.large_size, recipe.large_crops, _pair(recipe.large_scale)),
                CropSpec(recipe.small_size, recipe.small_crops, _pair(recipe.small_scale)),
            ],
            preprocessing=preprocessing,
            colour_strength=recipe.colour_strength,
            grey_probability=_GREY * recipe.colour_strength,
            degraded=recipe.degraded,
        )
        if start is not None:
            trunk.load_state_dict(dict(start.weights))
        if processes.count > 1:
            with_sync_batchnorm(model)
        model.to(device).to(memory_format=torch.channels_last)
        self._connected = model
        make = adamw if recipe.optimiser == "adamw" else lars
        self.optimiser = make(model, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def connect(self) -> None:
        """Switch to training mode and connect the processes; all must call."""
        self.model.train()
        if self._processes.count > 1 and self._connected is self.model:
            self._connected = DistributedDataParallel(self.model)

    def start_epoch(self) -> None:  # noqa: B027 - only some have anything to do
        """Forget what was monitored before."""

    def order_of(self, epoch: int) -> int:
        """The epoch whose order of the photos an epoch has."""
        return epoch

    def learn(self, photos: torch.Tensor, *, step: int, steps_per_epoch: int) -> torch.Tensor:
        """Take a step on this process's slice of a batch, after `connect`; all must call.

        Args:
            photos: uint8, (B, H, W, 3), on the device.
            step: From 0; learning rate and random numbers depend on it.
            steps_per_epoch: Steps per epoch.

        Returns:
            The loss, a scalar.

        Raises:
            ValueError: The slice has the wrong number of photos.
        """
        recipe = self._recipe
        if len(photos) * self._processes.count != recipe.batch_size:
            raise ValueError(
                f"{len(photos)} photos in each of {self._processes.count} processes do not make a "
                f"batch of {recipe.batch_size}"
            )
        rate = cosine_with_warmup(
            step,
            total=recipe.epochs * steps_per_epoch,
            warmup=round(recipe.warmup_epochs * steps_per_epoch),
            base=recipe.learning_rate,
            final=recipe.learning_rate * _FINAL_RATE,
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self._step, self._steps_per_epoch = step, steps_per_epoch
        loss = self._loss(photos, self._random(step))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._before_update()
        self.optimiser.step()
        return loss.detach()

    @property
    def _epoch(self) -> float:
        """How many epochs have passed."""
        return self._step / self._steps_per_epoch

    def _random(self, step: int) -> torch.Generator:
        """Random numbers of a step, the same in all processes."""
        return torch.Generator().manual_seed(self._recipe.seed * 1_000_003 + step)

    @abstractmethod
    def _loss(self, photos: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The loss of this process's slice, to be minimised."""

    def _before_update(self) -> None:  # noqa: B027
        """Change gradients before the optimiser uses them."""

    def collapse(self) -> CollapseReport | None:
        """How close the model came to collapse since `start_epoch`; None where it cannot."""
        return None

    @property
    def finite(self) -> bool:
        """Whether all weights are finite."""
        return all(bool(tensor.isfinite().all()) for tensor in self.model.state_dict().values())

    def state(self) -> dict[str, Any]:
        """State of all processes, for a checkpoint; all must call."""
        return {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned, in the same number of processes."""
        self.model.load_state_dict(state["model"])
        # The recipe gives the groups' settings, whose names depend on the optimiser's version.
        groups = self.optimiser.state_dict()["param_groups"]
        saved = {"state": state["optimiser"]["state"], "param_groups": groups}
        self.optimiser.load_state_dict(saved)
        # Speed and rounding depend on the memory format, so it must be the parameter's.
        for parameter, moments in self.optimiser.state.items():
            for name, value in moments.items():
                if value.shape == parameter.shape:
                    moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _pair(scale: Sequence[float]) -> tuple[float, float]:
    low, high = scale
    return low, high
