"""The training loop, in one process or many; resuming is exact to the bit."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from schemas.errors import SeerError, SettingsError
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.weights import make_backbone
from seer_model.training.pretraining.checkpoint import (
    flatten_state,
    has_checkpoints,
    load_latest,
    save_checkpoint,
    unflatten_state,
)
from seer_model.training.pretraining.distillation import Distiller
from seer_model.training.pretraining.learner import Learner
from seer_model.training.pretraining.monitor import CollapseReport
from seer_model.training.pretraining.photo_stream import PhotoStream
from seer_model.training.pretraining.processes import Processes
from seer_model.training.pretraining.recipe import Recipe
from seer_model.training.pretraining.swav import SwavLearner

__all__ = ["EpochReport", "Trainer", "TrainingCollapsed"]

log = logging.getLogger(__name__)


class TrainingCollapsed(SeerError):
    """The training collapsed or diverged, so that continuing it is pointless."""


@dataclass(frozen=True)
class EpochReport:
    """Figures of an epoch.

    Attributes:
        epoch: From 0.
        step: Steps since the training began.
        loss: Mean over the steps that this run took in the epoch.
        learning_rate: Rate at the end of the epoch.
        photos_per_second: Throughput of all processes together.
        unreadable: Photos replaced since this run began, over all processes.
        collapse: How close the model is to collapse; None for a distillation, which cannot.
    """

    epoch: int
    step: int
    loss: float
    learning_rate: float
    photos_per_second: float
    unreadable: int
    collapse: CollapseReport | None


class Trainer:
    """One process of a training.

    A training resumed from a checkpoint continues as if it had never stopped, on a CPU to the bit:
    order and crops depend on seed and step, and the checkpoint holds everything else. Global
    batches do not depend on the number of processes.

    Args:
        recipe: The settings; the same in all processes.
        stream: This process's photos, in batches of `recipe.batch_size` / processes.
        checkpoints: Folder of the checkpoints.
        device: This process's device.
        checkpoint_steps: Steps between checkpoints; every epoch also ends with one.
        start: Initial weights of the trunk; None is random.
        teacher: The network to learn from; None trains with SwAV.

    Raises:
        SettingsError: The batch size is not a multiple of the number of processes, or `start` has
            another architecture than the recipe.
    """

    def __init__(
        self,
        recipe: Recipe,
        stream: PhotoStream,
        checkpoints: Path,
        *,
        device: torch.device | str = "cpu",
        checkpoint_steps: int,
        start: Backbone | None = None,
        teacher: Backbone | None = None,
    ) -> None:
        if start is not None and start.architecture != recipe.architecture:
            raise SettingsError(
                f"the initial weights are of {start.architecture}, not {recipe.architecture}"
            )
        self.recipe = recipe
        self.preprocessing = Preprocessing() if start is None else start.preprocessing
        self._start = None if start is None else start.digest
        self._teacher = None if teacher is None else teacher.digest
        self._stream = stream
        self._checkpoints = checkpoints
        self._checkpoint_steps = checkpoint_steps
        self._device = torch.device(device)
        self._processes = Processes.current()
        if recipe.batch_size % self._processes.count:
            raise SettingsError(
                f"{self._processes.count} processes cannot share a batch of {recipe.batch_size}; "
                "choose a multiple"
            )
        common: dict[str, Any] = {
            "preprocessing": self.preprocessing,
            "device": self._device,
            "start": start,
        }
        self._learner: Learner = (
            SwavLearner(recipe, self._processes, **common)
            if teacher is None
            else Distiller(recipe, self._processes, teacher=teacher, **common)
        )
        self.step = 0
        self._collapse: str | None = None
        self._continues = False

    @property
    def model(self) -> nn.Module:
        """The current model."""
        return self._learner.model

    def resume(self) -> bool:
        """Restore the newest intact checkpoint; returns whether there was one.

        Raises:
            SettingsError: Its recipe, photos, initial weights or number of processes differ, or
                every checkpoint is damaged.
        """
        checkpoint = load_latest(self._checkpoints)
        if checkpoint is None:
            if has_checkpoints(self._checkpoints):
                raise SettingsError(
                    f"{self._checkpoints}: every checkpoint is damaged; restore one, or start over "
                    "in another folder"
                )
            return False
        state = unflatten_state(checkpoint.tensors, checkpoint.state)
        if state["made_by"] != self._made_by():
            raise SettingsError(
                f"{checkpoint.path}: was made with another recipe, manifest, number of processes "
                "or other initial weights or teacher; give the same, or another folder"
            )
        self._learner.load_state(state)
        self.step = checkpoint.step
        self._collapse = state["collapse"]
        self._continues = True
        log.info("resumed at step %d from %s", self.step, checkpoint.path)
        return True

    def _made_by(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.to_json(),
            "photos": self._stream.fingerprint,
            "start": self._start,
            "teacher": self._teacher,
            "processes": self._processes.count,
        }

    def run(self, on_epoch: Callable[[EpochReport], None]) -> None:
        """Train to the end of the recipe.

        Args:
            on_epoch: Called in every process at the end of every epoch, with the same report
                except for its speed.

        Raises:
            TrainingCollapsed: There was an alarm after the warm-up, in this run or the resumed one,
                or the weights are not finite.
            SettingsError: A checkpoint cannot be written, or the folder holds another run's.
        """
        if not self._continues and has_checkpoints(self._checkpoints):
            raise SettingsError(
                f"{self._checkpoints}: holds checkpoints of an earlier run; give --resume or "
                "another folder"
            )
        self._learner.connect()
        while (
            self._collapse is None and self.step < self.recipe.epochs * self._stream.steps_per_epoch
        ):
            on_epoch(self._train_epoch())
        if self._collapse is not None:
            raise TrainingCollapsed(self._collapse)

    def _train_epoch(self) -> EpochReport:
        """Train to the end of the epoch and save a checkpoint."""
        per_epoch = self._stream.steps_per_epoch
        epoch, start = divmod(self.step, per_epoch)
        self._learner.start_epoch()
        losses: list[torch.Tensor] = []
        started = perf_counter()
        for photos in self._stream.batches(self._learner.order_of(epoch), start):
            losses.append(
                self._learner.learn(
                    photos.to(self._device), step=self.step, steps_per_epoch=per_epoch
                )
            )
            self.step += 1
            if self.step % self._checkpoint_steps == 0 and self.step % per_epoch:
                self.save()
        report = self._report(epoch, losses, started)
        alarm = None if report.collapse is None else report.collapse.explain()
        if alarm is not None and epoch + 1 > self.recipe.warmup_epochs:
            self._collapse = f"epoch {epoch}: {alarm}"
        self.save()
        return report

    def _report(self, epoch: int, losses: list[torch.Tensor], started: float) -> EpochReport:
        loss = float(self._processes.sum(torch.stack(losses).mean())) / self._processes.count
        seconds = perf_counter() - started  # Only now has the device finished.
        unreadable = torch.tensor(self._stream.rejects.total(), device=self._device)
        return EpochReport(
            epoch=epoch,
            step=self.step,
            loss=loss,
            learning_rate=self._learner.optimiser.param_groups[0]["lr"],
            photos_per_second=len(losses) * self.recipe.batch_size / seconds,
            unreadable=int(self._processes.sum(unreadable)),
            collapse=self._learner.collapse(),
        )

    def save(self) -> None:
        """Write a checkpoint from the first process; all must call, and fail together.

        Raises:
            SettingsError: It cannot be written.
            TrainingCollapsed: The weights are not finite, so that nothing is saved.
        """
        if not self._learner.finite:
            raise TrainingCollapsed(
                f"step {self.step}: the training diverged (weights are not finite); start over in "
                "another folder with a lower learning rate"
            )
        state = {
            "made_by": self._made_by(),
            "collapse": self._collapse,
            **self._learner.state(),
        }
        failure: SettingsError | None = None
        if self._processes.rank == 0:
            try:
                save_checkpoint(self._checkpoints, self.step, *flatten_state(state))
            except SettingsError as error:
                failure = error
        failures = self._processes.sum(torch.tensor(int(failure is not None), device=self._device))
        if failures:
            raise failure or SettingsError(
                f"{self._checkpoints}: the first process cannot write a checkpoint"
            )
        self._continues = True

    def backbone(self, *, licence: str, origin: str, feature_stages: int = 1) -> Backbone:
        """A copy of the current trunk, in float32."""
        weights = {
            name: tensor.to("cpu", memory_format=torch.contiguous_format, copy=True)
            for name, tensor in self._learner.trunk.state_dict().items()
        }
        return make_backbone(
            self.recipe.architecture,
            self.preprocessing,
            licence=licence,
            origin=origin,
            weights=weights,
            feature_stages=feature_stages,
        )
