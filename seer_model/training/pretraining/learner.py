"""One step of SwAV: crops, model, loss, optimiser and queue."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from seer_model.backbones.backbone import Backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.training.pretraining.crops import CropSpec, MultiCrop
from seer_model.training.pretraining.loss import PrototypeQueue, assign, swav_loss
from seer_model.training.pretraining.model import SwavModel, SwavOutput
from seer_model.training.pretraining.optim import adamw, cosine_with_warmup, lars
from seer_model.training.pretraining.processes import Processes
from seer_model.training.pretraining.recipe import Recipe
from seer_model.training.pretraining.sync_batchnorm import with_sync_batchnorm

__all__ = ["Learner", "StepOutput"]

_FINAL_RATE = 0.001  # Of the peak learning rate, at the end.


class StepOutput(NamedTuple):
    """Result of a step on this process's B photos.

    Attributes:
        loss: A scalar.
        assignments: Those of the first large crops, (B, prototypes).
        embeddings: Those of the first large crops, (B, embedding width).
    """

    loss: torch.Tensor
    assignments: torch.Tensor
    embeddings: torch.Tensor


class Learner:
    """Model, optimiser and queue of one process; all processes always have the same weights.

    Args:
        recipe: The settings.
        processes: The processes that train together.
        preprocessing: Its mean and standard deviation normalise the crops.
        device: This process's device.
        start: Initial weights of the trunk; None is random.

    Attributes:
        model: The model.
        optimiser: The optimiser of all its weights.
    """

    def __init__(
        self,
        recipe: Recipe,
        processes: Processes,
        *,
        preprocessing: Preprocessing,
        device: torch.device,
        start: Backbone | None = None,
    ) -> None:
        self._recipe = recipe
        self._processes = processes
        self._device = device
        self._crops = MultiCrop(
            [
                CropSpec(recipe.large_size, recipe.large_crops, _pair(recipe.large_scale)),
                CropSpec(recipe.small_size, recipe.small_crops, _pair(recipe.small_scale)),
            ],
            preprocessing=preprocessing,
            colour_strength=recipe.colour_strength,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.model = SwavModel(
                recipe.architecture,
                projection=recipe.projection,
                prototypes=recipe.prototypes,
                checkpoint_trunk=recipe.checkpoint_trunk,
            )
        if start is not None:
            self.model.trunk.load_state_dict(dict(start.weights))
        if processes.count > 1:
            with_sync_batchnorm(self.model)
        self.model.to(device).to(memory_format=torch.channels_last)
        self._connected: nn.Module = self.model
        self.optimiser = self._make_optimiser()
        self._queue = (
            PrototypeQueue(
                crops=recipe.large_crops,
                length=recipe.queue_length // processes.count,
                width=recipe.projection[-1],
            ).to(device)
            if recipe.queue_length
            else None
        )

    def _make_optimiser(self) -> torch.optim.Optimizer:
        recipe = self._recipe
        make = adamw if recipe.optimiser == "adamw" else lars
        return make(self.model, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def connect(self) -> None:
        """Switch to training mode and connect the processes; all must call."""
        self.model.train()
        if self._processes.count > 1 and self._connected is self.model:
            self._connected = DistributedDataParallel(self.model)

    def learn(self, photos: torch.Tensor, *, step: int, steps_per_epoch: int) -> StepOutput:
        """Take a step on this process's slice of a batch, after `connect`; all must call.

        Args:
            photos: uint8, (B, H, W, 3), on the device.
            step: From 0; learning rate and random numbers depend on it.
            steps_per_epoch: Steps per epoch.

        Raises:
            ValueError: The slice has the wrong number of photos.
        """
        recipe = self._recipe
        if len(photos) * self._processes.count != recipe.batch_size:
            raise ValueError(
                f"{len(photos)} photos in each of {self._processes.count} processes do not make a "
                f"batch of {recipe.batch_size}"
            )
        self._set_rate(step, steps_per_epoch)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        crops = self._crops(
            photos, generator, batch=recipe.batch_size, first=self._processes.rank * len(photos)
        )
        self.model.normalise_prototypes()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=recipe.bf16):
            output = self._connected(crops)
        use_queue = step >= recipe.queue_from_epoch * steps_per_epoch
        assignments = self._assign(output, use_queue=use_queue)
        loss = swav_loss(output.scores, assignments, temperature=recipe.temperature)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if step < recipe.frozen_prototypes_epochs * steps_per_epoch:
            self.model.drop_prototype_gradients()
        self.optimiser.step()
        return StepOutput(loss.detach(), assignments[0], output.embeddings[0].detach())

    def _assign(self, output: SwavOutput, *, use_queue: bool) -> list[torch.Tensor]:
        """Assignments of the large crops, whose embeddings then enter the queue."""
        large = self._recipe.large_crops
        queued: list[torch.Tensor | None] = [None] * large
        if self._queue is not None:
            if use_queue:
                queued = self._queue.scores(self.model.prototypes.weight)
            self._queue.push(output.embeddings[:large])
        return [
            assign(scores, rows, epsilon=self._recipe.epsilon, group=self._processes.group)
            for scores, rows in zip(output.scores[:large], queued, strict=True)
        ]

    def _set_rate(self, step: int, steps_per_epoch: int) -> None:
        recipe = self._recipe
        rate = cosine_with_warmup(
            step,
            total=recipe.epochs * steps_per_epoch,
            warmup=round(recipe.warmup_epochs * steps_per_epoch),
            base=recipe.learning_rate,
            final=recipe.learning_rate * _FINAL_RATE,
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    @property
    def finite(self) -> bool:
        """Whether all weights are finite."""
        return all(bool(tensor.isfinite().all()) for tensor in self.model.state_dict().values())

    def state(self) -> dict[str, Any]:
        """State of all processes, for a checkpoint; all must call."""
        queue = {} if self._queue is None else self._queue.state_dict()
        gathered = {name: self._processes.gather(tensor) for name, tensor in queue.items()}
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "queues": gathered,
        }

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
        if self._queue is not None:
            rank = self._processes.rank
            self._queue.load_state_dict({k: parts[rank] for k, parts in state["queues"].items()})


def _pair(scale: Sequence[float]) -> tuple[float, float]:
    low, high = scale
    return low, high
