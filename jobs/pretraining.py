"""A pretraining in this process, be it the only one or one of many; the first one keeps records.

What it leaves in the output folder:

    checkpoints/    see `seer_model.pretraining.checkpoint`
    epochs.json     the figures of every epoch
    backbone/       the trunk, once the training is done
    start/          the weights it started from, where those were given
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jobs.photo_sample import PhotoSample, embed_sample, sample_photos
from jobs.progress import Steps, show_steps
from schemas.errors import DataContractError
from seer_model import registry
from seer_model.backbone import Backbone, load_backbone, save_backbone
from seer_model.embedder import PhotoEmbedder
from seer_model.files import read_json, write_json
from seer_model.photos import PhotoLimits
from seer_model.pretraining.photo_stream import PhotoStream
from seer_model.pretraining.probe import knn_accuracy
from seer_model.pretraining.processes import Processes
from seer_model.pretraining.recipe import Recipe
from seer_model.pretraining.trainer import EpochReport, Trainer

__all__ = ["Training", "read_epochs", "train"]

log = logging.getLogger(__name__)

_PROBE_SEED = 0
_QUERIES_PER_PHOTO = 0.25
_DIGEST_DIGITS = 32


@dataclass(frozen=True)
class Training:
    """What a process must know to take part.

    Attributes:
        recipe: How to train.
        manifest: The photos.
        splits: Train on these splits only; None trains on all.
        output: Folder for all that is written.
        device: torch's name of the device.
        resume: Go on from the last checkpoint.
        checkpoint_steps: Steps between checkpoints.
        licence: Of the resulting weights.
        feature_stages: Of the resulting backbone, see `Trunk`.
        probe_splits: Splits to know labels of and to guess them of; None is `train` and `val`,
            where they have labels.
        probe_every: Epochs between probes; there is one after the last as well. 0 for none at all.
        probe_photos: At most so many photos to know labels of, and a quarter as many to guess.
        run_id: The MLflow run that takes the figures.
        limits: Limits on photos.
        start: Folder of the backbone to start from; None is random weights.
    """

    recipe: Recipe
    manifest: str
    splits: tuple[str, ...] | None
    output: Path
    device: str
    resume: bool
    checkpoint_steps: int
    licence: str
    feature_stages: int
    probe_splits: tuple[str, str] | None
    probe_every: int
    probe_photos: int
    run_id: str
    limits: PhotoLimits
    start: Path | None = None


def train(training: Training) -> None:
    """Train to the end and save the backbone; all processes must call.

    Raises:
        SettingsError: The recipe does not fit the photos or the checkpoints.
        DataContractError: The photos cannot be used.
        TrainingCollapsed: There is nothing to be had from going on.
    """
    processes = Processes.current()
    recipe = training.recipe
    stream = _WatchedStream(
        training.manifest,
        splits=training.splits,
        photo_size=recipe.photo_size,
        batch_size=max(1, recipe.batch_size // processes.count),
        seed=recipe.seed,
        rank=processes.rank,
        world_size=processes.count,
        decode_threads=_decode_threads(),
        limits=training.limits,
    )
    start = None if training.start is None else load_backbone(training.start)
    trainer = Trainer(
        recipe,
        stream,
        training.output / "checkpoints",
        device=training.device,
        checkpoint_steps=training.checkpoint_steps,
        start=start,
    )
    if training.resume:
        trainer.resume()
    if processes.rank > 0:
        trainer.run(lambda _: None)
        return
    photos = stream.steps_per_epoch * recipe.batch_size
    data = {
        "manifest": training.manifest,
        "ds": None,
        "rows": photos,
        "digest": stream.fingerprint[:_DIGEST_DIGITS],
    }
    registry.log_data(data, run_id=training.run_id)
    total = recipe.epochs * stream.steps_per_epoch
    with show_steps("pretraining", total, trainer.step) as steps:
        stream.steps = steps
        done = trainer.step // stream.steps_per_epoch
        trainer.run(_Records(training, trainer, steps, done))
    origin = f"SwAV, {recipe.epochs} epochs of {photos} photos ({stream.fingerprint[:12]})"
    if start is not None:
        origin = f"{origin}, from {start.digest[:12]} ({start.origin})"
    backbone = trainer.backbone(
        licence=training.licence, origin=origin, feature_stages=training.feature_stages
    )
    save_backbone(backbone, training.output / "backbone")


def read_epochs(output: Path) -> list[dict[str, Any]]:
    """The figures of every epoch so far, by name; `epoch` counts from 1."""
    path = output / "epochs.json"
    return list(read_json(path)["epochs"]) if path.is_file() else []


def _decode_threads() -> int:
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class _WatchedStream(PhotoStream):
    """Says when a batch was worked on."""

    steps: Steps | None = None

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[torch.Tensor]:
        for batch in super().batches(epoch, start_step):
            yield batch
            if self.steps is not None:
                self.steps.advance()


class _Records:
    """Puts down what happened in every epoch: in a file, in MLflow, on the screen."""

    def __init__(self, training: Training, trainer: Trainer, steps: Steps, done: int) -> None:
        self._training = training
        self._trainer = trainer
        self._steps = steps
        self._epochs = [e for e in read_epochs(training.output) if e["epoch"] <= done]
        self._probe = _Probe.load(training)

    def __call__(self, report: EpochReport) -> None:
        figures = {
            "loss": report.loss,
            "learning_rate": report.learning_rate,
            "photos_per_second": report.photos_per_second,
            "photos_unreadable": report.unreadable,
            "prototypes_used": report.collapse.prototypes_used,
            "assignment_entropy": report.collapse.assignment_entropy,
            "assignment_information": report.collapse.assignment_information,
            "feature_spread": report.collapse.feature_spread,
        }
        epoch = report.epoch + 1
        last = self._training.recipe.epochs
        if self._probe and (epoch % self._training.probe_every == 0 or epoch == last):
            backbone = self._trainer.backbone(
                licence=self._training.licence,
                origin="",
                feature_stages=self._training.feature_stages,
            )
            figures["knn_accuracy"] = self._probe.accuracy(backbone)
        registry.log_figures(figures, step=epoch, run_id=self._training.run_id)
        self._epochs = [e for e in self._epochs if e["epoch"] < epoch]
        self._epochs.append({"epoch": epoch, "step": report.step, **figures})
        write_json({"epochs": self._epochs}, self._training.output / "epochs.json.new")
        (self._training.output / "epochs.json.new").replace(self._training.output / "epochs.json")
        shown = {name: f"{value:.4g}" for name, value in figures.items()}
        self._steps.say(
            f"epoch {epoch} of {last}: " + ", ".join(f"{k} {v}" for k, v in shown.items())
        )


@dataclass(frozen=True)
class _Probe:
    known: PhotoSample
    asked: PhotoSample
    device: str
    limits: PhotoLimits

    @classmethod
    def load(cls, training: Training) -> "_Probe | None":
        if not training.probe_every:
            return None
        known, asked = (
            sample_photos(training.manifest, [split], count, labelled=True, seed=_PROBE_SEED)
            for split, count in zip(
                training.probe_splits or ("train", "val"),
                (training.probe_photos, max(1, round(training.probe_photos * _QUERIES_PER_PHOTO))),
                strict=True,
            )
        )
        if len(known) and len(asked):
            return cls(known, asked, training.device, training.limits)
        if training.probe_splits is not None:
            raise DataContractError(
                f"{training.manifest}: {len(known)} labelled photos in the split "
                f"{training.probe_splits[0]} and {len(asked)} in {training.probe_splits[1]}: "
                "nothing to probe with"
            )
        log.info("no labels in the splits train and val: nothing to probe with")
        return None

    def accuracy(self, backbone: Backbone) -> float:
        embedder = PhotoEmbedder.open(
            backbone, self.device, threads=_decode_threads(), limits=self.limits
        )
        known, asked = (embed_sample(embedder, sample) for sample in (self.known, self.asked))
        if not len(known.photos) or not len(asked.photos):
            raise DataContractError("no photo to probe with can be read")
        labels = [[str(x) for x in sample.photos.labels] for sample in (known, asked)]
        return knn_accuracy(known.vectors, labels[0], asked.vectors, labels[1], device=self.device)
