"""What learns in SwAV: the model, its optimiser and queue, and what they do with a batch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from seer_model.backbone import Backbone
from seer_model.preprocessing import Preprocessing
from seer_model.pretraining.crops import CropSpec, MultiCrop
from seer_model.pretraining.loss import PrototypeQueue, assign, swav_loss
from seer_model.pretraining.model import SwavModel
from seer_model.pretraining.optim import Larc, adamw, cosine_with_warmup, parameter_groups
from seer_model.pretraining.processes import Processes
from seer_model.pretraining.recipe import Recipe
from seer_model.pretraining.sync_batchnorm import with_sync_batchnorm

__all__ = ["Learner", "StepOutput"]

_FINAL_RATE = 0.001


class StepOutput(NamedTuple):
    """What a step made of this process's B photos.

    Attributes:
        loss: A scalar.
        assignments: Of the first large crops, (B, prototypes).
        embeddings: Of the first large crops, (B, embedding width).
    """

    loss: torch.Tensor
    assignments: torch.Tensor
    embeddings: torch.Tensor


class Learner:
    """One process's share of the learning; weights are the same in all processes at all times.

    Args:
        recipe: What to do.
        processes: Who learns together.
        preprocessing: Its mean and standard deviation normalise the crops.
        device: Where this process computes.
        start: Weights that the trunk starts from instead of random ones.

    Attributes:
        model: The weights.
        optimiser: What moves them.
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
                CropSpec(recipe.large_size, recipe.large_crops, recipe.large_scale),
                CropSpec(recipe.small_size, recipe.small_crops, recipe.small_scale),
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
        if recipe.optimiser == "adamw":
            return adamw(self.model, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        groups = parameter_groups(self.model, weight_decay=recipe.weight_decay)
        return Larc(groups, lr=recipe.learning_rate)

    def connect(self) -> None:
        """Get ready to learn, when all processes are; all must call."""
        self.model.train()
        if self._processes.count > 1 and self._connected is self.model:
            self._connected = DistributedDataParallel(self.model)

    def learn(self, photos: torch.Tensor, *, step: int, steps_per_epoch: int) -> StepOutput:
        """Learn from this process's part of a batch, after `connect`; all processes must call.

        Args:
            photos: uint8, (B, H, W, 3), on the device.
            step: From 0; learning rate and random numbers depend on it.
            steps_per_epoch: Steps an epoch.

        Raises:
            ValueError: There are more or fewer photos than this process's part.
        """
        recipe = self._recipe
        if len(photos) * self._processes.count != recipe.batch_size:
            raise ValueError(
                f"{len(photos)} photos are not the part of a process in a batch of "
                f"{recipe.batch_size} that {self._processes.count} share"
            )
        self._set_rate(step, steps_per_epoch)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        crops = self._crops(
            photos, generator, batch=recipe.batch_size, first=self._processes.rank * len(photos)
        )
        self.model.normalise_prototypes()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=recipe.bf16):
            output = self._connected(crops)
        large = recipe.large_crops
        queued: list[torch.Tensor | None] = [None] * large
        if self._queue is not None:
            if step >= recipe.queue_from_epoch * steps_per_epoch:
                queued = self._queue.scores(self.model.prototypes.weight)
            self._queue.push(output.embeddings[:large])
        assignments = [
            assign(scores, rows, epsilon=recipe.epsilon, group=self._processes.group)
            for scores, rows in zip(output.scores[:large], queued, strict=True)
        ]
        loss = swav_loss(output.scores, assignments, temperature=recipe.temperature)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if step < recipe.frozen_prototypes_epochs * steps_per_epoch:
            self.model.drop_prototype_gradients()
        self.optimiser.step()
        return StepOutput(loss.detach(), assignments[0], output.embeddings[0].detach())

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
        """Whether all weights are finite, the same in all processes."""
        return all(bool(tensor.isfinite().all()) for tensor in self.model.state_dict().values())

    def state(self) -> dict[str, Any]:
        """Everything that learning depends on, of all processes; all must call."""
        queue = {} if self._queue is None else self._queue.state_dict()
        gathered = {name: self._processes.gather(tensor) for name, tensor in queue.items()}
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "queues": gathered,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state` gave, in as many processes."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        # Each tensor gets its parameter's order in memory, on which speed and rounding depend.
        for parameter, moments in self.optimiser.state.items():
            for name, value in moments.items():
                if value.shape == parameter.shape:
                    moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        if self._queue is not None:
            rank = self._processes.rank
            self._queue.load_state_dict({k: parts[rank] for k, parts in state["queues"].items()})
