"""A step of SwAV: crops, model, balanced assignments, swapped prediction, queue."""

from collections.abc import Mapping
from typing import Any

import torch

from seer_model.backbones.backbone import Backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.training.precision import mixed_precision
from seer_model.training.pretraining.learner import Learner
from seer_model.training.pretraining.loss import PrototypeQueue, assign, swav_loss
from seer_model.training.pretraining.model import SwavModel, SwavOutput
from seer_model.training.pretraining.monitor import CollapseMonitor, CollapseReport
from seer_model.training.pretraining.processes import Processes
from seer_model.training.pretraining.recipe import Recipe

__all__ = ["SwavLearner"]


class SwavLearner(Learner):
    """Learns from photos alone: each crop predicts which prototypes the others belong to.

    Args:
        recipe: See `Learner`.
        processes: Likewise.
        preprocessing: Likewise.
        device: Likewise.
        start: Likewise.
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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            model = SwavModel(
                recipe.architecture,
                projection=recipe.projection,
                prototypes=recipe.prototypes,
                checkpoint_trunk=recipe.checkpoint_trunk,
            )
        self._swav = model
        super().__init__(
            model,
            model.trunk,
            recipe,
            processes,
            preprocessing=preprocessing,
            device=device,
            start=start,
        )
        self._queue = (
            PrototypeQueue(
                crops=recipe.large_crops,
                length=recipe.queue_length // processes.count,
                width=recipe.projection[-1],
            ).to(device)
            if recipe.queue_length
            else None
        )
        self.start_epoch()

    def start_epoch(self) -> None:
        """See `Learner`."""
        self._monitor = CollapseMonitor(
            prototypes=self._recipe.prototypes,
            width=self._recipe.projection[-1],
            device=self._device,
        )

    def collapse(self) -> CollapseReport:
        """See `Learner`."""
        return self._monitor.report(self._processes.group)

    def _loss(self, photos: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        recipe = self._recipe
        crops = self._crops(
            photos, generator, batch=recipe.batch_size, first=self._processes.rank * len(photos)
        )
        self._swav.normalise_prototypes()
        with mixed_precision(self._device, recipe.bf16):
            output = self._connected(crops)
        assignments = self._assign(output, use_queue=self._epoch >= recipe.queue_from_epoch)
        self._monitor.update(assignments[0], output.embeddings[0].detach())
        return swav_loss(output.scores, assignments, temperature=recipe.temperature)

    def _assign(self, output: SwavOutput, *, use_queue: bool) -> list[torch.Tensor]:
        """Assignments of the large crops, whose embeddings then enter the queue."""
        large = self._recipe.large_crops
        queued: list[torch.Tensor | None] = [None] * large
        if self._queue is not None:
            if use_queue:
                queued = self._queue.scores(self._swav.prototypes.weight)
            self._queue.push(output.embeddings[:large])
        return [
            assign(scores, rows, epsilon=self._recipe.epsilon, group=self._processes.group)
            for scores, rows in zip(output.scores[:large], queued, strict=True)
        ]

    def _before_update(self) -> None:
        if self._epoch < self._recipe.frozen_prototypes_epochs:
            self._swav.drop_prototype_gradients()

    def state(self) -> dict[str, Any]:
        """See `Learner`."""
        queue = {} if self._queue is None else self._queue.state_dict()
        gathered = {name: self._processes.gather(tensor) for name, tensor in queue.items()}
        return {**super().state(), "queues": gathered}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Learner`."""
        super().load_state(state)
        if self._queue is not None:
            rank = self._processes.rank
            self._queue.load_state_dict({k: parts[rank] for k, parts in state["queues"].items()})
