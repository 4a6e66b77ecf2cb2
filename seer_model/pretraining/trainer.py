"""The training loop of SwAV: resumable to the bit, in one process or many."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from schemas.errors import SeerError, SettingsError
from seer_model.backbone import Backbone, make_backbone
from seer_model.preprocessing import Preprocessing
from seer_model.pretraining.checkpoint import (
    flatten_state,
    load_latest,
    save_checkpoint,
    unflatten_state,
)
from seer_model.pretraining.crops import LARGE_CROPS, SMALL_CROPS, CropSpec, MultiCrop
from seer_model.pretraining.loss import PrototypeQueue, assign, swav_loss
from seer_model.pretraining.model import SwavModel
from seer_model.pretraining.monitor import CollapseMonitor, CollapseReport
from seer_model.pretraining.optim import Larc, adamw, cosine_with_warmup, parameter_groups
from seer_model.pretraining.photo_stream import PhotoStream
from seer_model.pretraining.recipe import Recipe
from seer_model.pretraining.sync_batchnorm import with_sync_batchnorm

__all__ = ["EpochReport", "Trainer", "TrainingCollapsed"]

log = logging.getLogger(__name__)

_FINAL_RATE = 0.001


class TrainingCollapsed(SeerError):
    """The model says nearly the same of every photo, or diverged; going on would be a waste."""


@dataclass(frozen=True)
class EpochReport:
    """What happened in an epoch.

    Attributes:
        epoch: From 0.
        step: Steps done since the beginning.
        loss: Mean over the steps of the epoch that this run did.
        learning_rate: At its end.
        photos_per_second: Over all processes.
        unreadable: Photos of this process that were replaced since the run began.
        collapse: How far the model is from collapse.
    """

    epoch: int
    step: int
    loss: float
    learning_rate: float
    photos_per_second: float
    unreadable: int
    collapse: CollapseReport


class Trainer:
    """One process of a training.

    A training resumed from a checkpoint goes on as if it had never stopped: crops and order are
    drawn anew for every step from seed and step, and everything else is in the checkpoint. On the
    CPU that is exact to the bit. A global batch is the same whatever the number of processes.

    Args:
        recipe: What to do; the same in all processes.
        stream: This process's photos, in batches of `recipe.batch_size` / processes.
        checkpoints: Folder of the checkpoints.
        device: Where this process computes.
        checkpoint_steps: Steps between checkpoints; there is one after every epoch as well.
    """

    def __init__(
        self,
        recipe: Recipe,
        stream: PhotoStream,
        checkpoints: Path,
        *,
        device: torch.device | str = "cpu",
        checkpoint_steps: int = 500,
    ) -> None:
        self.recipe = recipe
        self.preprocessing = Preprocessing()
        self._stream = stream
        self._checkpoints = checkpoints
        self._checkpoint_steps = checkpoint_steps
        self._device = torch.device(device)
        self._world = distributed.get_world_size() if distributed.is_initialized() else 1
        self._rank = distributed.get_rank() if distributed.is_initialized() else 0
        self._group = distributed.group.WORLD if self._world > 1 else None
        self._crops = MultiCrop(
            [
                CropSpec(recipe.large_size, recipe.large_crops, LARGE_CROPS.scale),
                CropSpec(recipe.small_size, recipe.small_crops, SMALL_CROPS.scale),
            ],
            preprocessing=self.preprocessing,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.model = SwavModel(
                recipe.architecture,
                projection=recipe.projection,
                prototypes=recipe.prototypes,
                checkpoint_trunk=recipe.checkpoint_trunk,
            )
        if self._world > 1:
            with_sync_batchnorm(self.model)
        self.model.to(self._device).to(memory_format=torch.channels_last)
        self._optimiser = self._make_optimiser()
        self._queue = (
            PrototypeQueue(
                crops=recipe.large_crops,
                length=recipe.queue_length // self._world,
                width=recipe.projection[-1],
            ).to(self._device)
            if recipe.queue_length
            else None
        )
        self.step = 0

    def _make_optimiser(self) -> torch.optim.Optimizer:
        recipe = self.recipe
        if recipe.optimiser == "adamw":
            return adamw(self.model, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        groups = parameter_groups(self.model, weight_decay=recipe.weight_decay)
        return Larc(groups, lr=recipe.learning_rate)

    def resume(self) -> bool:
        """Take up the last good checkpoint; returns whether there was one.

        Raises:
            SettingsError: It is of another recipe, other photos or another number of processes.
        """
        checkpoint = load_latest(self._checkpoints)
        if checkpoint is None:
            return False
        state = unflatten_state(checkpoint.tensors, checkpoint.state)
        if state["made_by"] != self._made_by():
            raise SettingsError(
                f"{checkpoint.path}: was made with another recipe, manifest or number of "
                "processes; give the same, or another folder"
            )
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        if self._queue is not None:
            self._queue.load_state_dict(state["queues"][self._rank])
        self.step = checkpoint.step
        log.info("resumed at step %d from %s", self.step, checkpoint.path)
        return True

    def _made_by(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.to_json(),
            "photos": self._stream.fingerprint,
            "processes": self._world,
        }

    def run(self, on_epoch: Callable[[EpochReport], None]) -> None:
        """Train to the end of the recipe.

        Args:
            on_epoch: Called in every process at the end of every epoch.

        Raises:
            TrainingCollapsed: The monitor saw a collapse after the warm-up.
            SettingsError: A checkpoint cannot be written.
        """
        per_epoch = self._stream.steps_per_epoch
        model = DistributedDataParallel(self.model) if self._world > 1 else self.model
        self.model.train()
        while self.step < self.recipe.epochs * per_epoch:
            epoch, start = divmod(self.step, per_epoch)
            monitor = CollapseMonitor(
                prototypes=self.recipe.prototypes,
                width=self.recipe.projection[-1],
                device=self._device,
            )
            losses: list[torch.Tensor] = []
            started = perf_counter()
            for photos in self._stream.batches(epoch, start):
                losses.append(self._train_step(model, photos.to(self._device), monitor))
                self.step += 1
                if self.step % self._checkpoint_steps == 0 and self.step % per_epoch:
                    self.save()
            seconds = perf_counter() - started
            report = EpochReport(
                epoch=epoch,
                step=self.step,
                loss=self._mean(torch.stack(losses).mean()),
                learning_rate=self._optimiser.param_groups[0]["lr"],
                photos_per_second=len(losses) * self.recipe.batch_size / seconds,
                unreadable=self._stream.rejects.total(),
                collapse=monitor.report(),
            )
            self.save()
            on_epoch(report)
            alarm = report.collapse.explain()
            if alarm is not None and epoch + 1 > self.recipe.warmup_epochs:
                raise TrainingCollapsed(f"epoch {epoch}: {alarm}")

    def _train_step(
        self, model: nn.Module, photos: torch.Tensor, monitor: CollapseMonitor
    ) -> torch.Tensor:
        recipe = self.recipe
        per_epoch = self._stream.steps_per_epoch
        rate = cosine_with_warmup(
            self.step,
            total=recipe.epochs * per_epoch,
            warmup=round(recipe.warmup_epochs * per_epoch),
            base=recipe.learning_rate,
            final=recipe.learning_rate * _FINAL_RATE,
        )
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.step)
        crops = self._crops(
            photos, generator, batch=recipe.batch_size, first=self._rank * len(photos)
        )
        self.model.normalise_prototypes()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=recipe.bf16):
            output = model(crops)
        large = recipe.large_crops
        queued: list[torch.Tensor | None] = [None] * large
        if self._queue is not None:
            if self.step >= recipe.queue_from_epoch * per_epoch:
                queued = self._queue.scores(self.model.prototypes.weight)
            self._queue.push(output.embeddings[:large])
        assignments = [
            assign(scores, rows, epsilon=recipe.epsilon, group=self._group)
            for scores, rows in zip(output.scores[:large], queued, strict=True)
        ]
        loss = swav_loss(output.scores, assignments, temperature=recipe.temperature)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.step < recipe.frozen_prototypes_epochs * per_epoch:
            self.model.drop_prototype_gradients()
        self._optimiser.step()
        monitor.update(assignments[0], output.embeddings[0].detach())
        return loss.detach()

    def _mean(self, value: torch.Tensor) -> float:
        if self._world > 1:
            distributed.all_reduce(value)
        return float(value) / self._world

    def _gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        if self._world == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self._world)]
        distributed.all_gather(parts, tensor)
        return parts

    def save(self) -> None:
        """Write a checkpoint, from the first process.

        Raises:
            SettingsError: It cannot be written.
        """
        queues: list[Any] = [None] * self._world
        if self._queue is not None:
            queues = [{} for _ in range(self._world)]
            for name, tensor in self._queue.state_dict().items():
                for part, one in zip(queues, self._gather(tensor), strict=True):
                    part[name] = one
        if self._rank == 0:
            tensors, record = flatten_state(
                {
                    "made_by": self._made_by(),
                    "model": self.model.state_dict(),
                    "optimiser": self._optimiser.state_dict(),
                    "queues": queues,
                }
            )
            save_checkpoint(self._checkpoints, self.step, tensors, record)

    def backbone(self, *, licence: str, origin: str) -> Backbone:
        """The trunk as it is now, in float32."""
        weights = {name: w.detach().cpu() for name, w in self.model.trunk.state_dict().items()}
        return make_backbone(
            self.recipe.architecture,
            self.preprocessing,
            licence=licence,
            origin=origin,
            weights=weights,
        )
