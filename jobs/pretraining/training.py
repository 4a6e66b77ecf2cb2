"""Pretrain in this process, the only one or one of several; the first one keeps records.

The output folder:

    checkpoints/    see `seer_model.training.pretraining.checkpoint`
    epochs.json     the figures of every epoch
    backbone/       the trunk, once the training is done
    start/          the initial weights, with --start-from
    teacher/        the network that taught, with --teacher
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jobs.command.progress import Steps, show_steps
from jobs.pretraining.photo_sample import PhotoSample, embed_sample, sample_photos
from jobs.pretraining.settings import PretrainBackbone
from schemas.errors import DataContractError
from seer_model.backbones.backbone import Backbone, load_backbone, save_backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.files import read_json, write_json
from seer_model.photos.limits import PhotoLimits
from seer_model.tracking import runs
from seer_model.training.pretraining.photo_stream import PhotoStream
from seer_model.training.pretraining.probe import knn_accuracy
from seer_model.training.pretraining.processes import Processes
from seer_model.training.pretraining.trainer import EpochReport, Trainer

__all__ = ["Training", "read_epochs", "train"]

log = logging.getLogger(__name__)

_PROBE_SEED = 0
_QUERIES_PER_LABELLED_PHOTO = 0.25
_DIGEST_DIGITS = 32


@dataclass(frozen=True)
class Training:
    """The inputs of every process of a training.

    Attributes:
        settings: The job's settings.
        device: torch's name of this process's device.
        run_id: The MLflow run that gets the figures.
        start: Folder of the initial backbone; None is random weights.
        teacher: Folder of the network to learn from; None trains with SwAV.
    """

    settings: PretrainBackbone
    device: str
    run_id: str
    start: Path | None = None
    teacher: Path | None = None


def train(training: Training) -> None:
    """Train to the end and save the backbone; all processes must call.

    Raises:
        SettingsError: The recipe does not fit the photos or the checkpoints.
        DataContractError: The photos are unusable.
        TrainingCollapsed: The training collapsed or diverged.
    """
    settings = training.settings
    processes = Processes.current()
    stream = _open_stream(settings, processes)
    start = None if training.start is None else load_backbone(training.start)
    teacher = None if training.teacher is None else load_backbone(training.teacher)
    trainer = Trainer(
        settings.recipe(),
        stream,
        settings.output / "checkpoints",
        device=training.device,
        checkpoint_steps=settings.checkpoint_steps,
        start=start,
        teacher=teacher,
    )
    if settings.resume:
        trainer.resume()
    if processes.rank > 0:
        trainer.run(lambda _: None)
        return
    photos = stream.steps_per_epoch * settings.batch_size
    data = {
        "manifest": settings.manifest,
        "ds": None,
        "rows": photos,
        "digest": stream.fingerprint[:_DIGEST_DIGITS],
    }
    runs.log_data(data, run_id=training.run_id)
    total = settings.epochs * stream.steps_per_epoch
    with show_steps("pretraining", total, trainer.step) as steps:
        stream.steps = steps
        done = trainer.step // stream.steps_per_epoch
        trainer.run(_Records(training, trainer, steps, done))
    way = "SwAV" if teacher is None else f"taught by {teacher.digest[:12]} ({teacher.origin})"
    origin = f"{way}, {settings.epochs} epochs of {photos} photos ({stream.fingerprint[:12]})"
    if start is not None:
        origin = f"{origin}, from {start.digest[:12]} ({start.origin})"
    backbone = trainer.backbone(
        licence=settings.licence.lower(), origin=origin, feature_stages=settings.feature_stages
    )
    save_backbone(backbone, settings.output / "backbone")


def _open_stream(settings: PretrainBackbone, processes: Processes) -> "_WatchedStream":
    return _WatchedStream(
        settings.manifest,
        splits=settings.splits or None,
        photo_size=settings.photo_size,
        batch_size=max(1, settings.batch_size // processes.count),
        seed=settings.seed,
        rank=processes.rank,
        world_size=processes.count,
        decode_threads=_decode_threads(),
        limits=settings.photo_limits(),
    )


def read_epochs(output: Path) -> list[dict[str, Any]]:
    """Figures of every epoch so far, by name; `epoch` counts from 1."""
    path = output / "epochs.json"
    return list(read_json(path)["epochs"]) if path.is_file() else []


def _decode_threads() -> int:
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class _WatchedStream(PhotoStream):
    """Advances the progress display after every batch."""

    steps: Steps | None = None

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[torch.Tensor]:
        for batch in super().batches(epoch, start_step):
            yield batch
            if self.steps is not None:
                self.steps.advance()


class _Records:
    """Records the figures of every epoch in `epochs.json`, in MLflow and on the screen."""

    def __init__(self, training: Training, trainer: Trainer, steps: Steps, done: int) -> None:
        self._training = training
        self._trainer = trainer
        self._steps = steps
        self._epochs = [e for e in read_epochs(training.settings.output) if e["epoch"] <= done]
        self._probe = _Probe.load(training)

    def __call__(self, report: EpochReport) -> None:
        figures = {
            "loss": report.loss,
            "learning_rate": report.learning_rate,
            "photos_per_second": report.photos_per_second,
            "photos_unreadable": report.unreadable,
        }
        if report.collapse is not None:
            figures |= {
                "prototypes_used": report.collapse.prototypes_used,
                "assignment_entropy": report.collapse.assignment_entropy,
                "assignment_information": report.collapse.assignment_information,
                "feature_spread": report.collapse.feature_spread,
            }
        settings = self._training.settings
        epoch = report.epoch + 1
        last = settings.epochs
        if self._probe and (epoch % settings.probe_every == 0 or epoch == last):
            backbone = self._trainer.backbone(
                licence=settings.licence.lower(),
                origin="",
                feature_stages=settings.feature_stages,
            )
            figures["knn_accuracy"] = self._probe.accuracy(backbone)
        runs.log_figures(figures, step=epoch, run_id=self._training.run_id)
        self._epochs = [e for e in self._epochs if e["epoch"] < epoch]
        self._epochs.append({"epoch": epoch, "step": report.step, **figures})
        written = settings.output / "epochs.json.new"
        write_json({"epochs": self._epochs}, written)
        written.replace(settings.output / "epochs.json")
        shown = {name: f"{value:.4g}" for name, value in figures.items()}
        self._steps.say(
            f"epoch {epoch} of {last}: " + ", ".join(f"{k} {v}" for k, v in shown.items())
        )


@dataclass(frozen=True)
class _Probe:
    """Labelled photos of two splits, to measure a backbone's kNN accuracy with."""

    known: PhotoSample
    queries: PhotoSample
    device: str
    limits: PhotoLimits

    @classmethod
    def load(cls, training: Training) -> "_Probe | None":
        settings = training.settings
        if not settings.probe_every:
            return None
        splits = settings.probe_splits or ["train", "val"]
        fewer = max(1, round(settings.probe_photos * _QUERIES_PER_LABELLED_PHOTO))
        known, queries = (
            sample_photos(settings.manifest, [split], count, labelled=True, seed=_PROBE_SEED)
            for split, count in zip(splits, (settings.probe_photos, fewer), strict=True)
        )
        drawn, queries = len(queries), queries.apart_from(known)
        if len(queries) < drawn:
            log.warning("%d photos to probe with are in both splits", drawn - len(queries))
        if len(known) and len(queries):
            return cls(known, queries, training.device, settings.photo_limits())
        if settings.probe_splits:
            raise DataContractError(
                f"{settings.manifest}: nothing to probe with: the split {splits[0]} has "
                f"{len(known)} labelled photos and {splits[1]} has {len(queries)}"
            )
        log.info("no probe: the splits train and val have no labelled photos")
        return None

    def accuracy(self, backbone: Backbone) -> float:
        embedder = PhotoEmbedder.open(
            backbone, self.device, threads=_decode_threads(), limits=self.limits
        )
        known, queries = (embed_sample(embedder, sample) for sample in (self.known, self.queries))
        if not len(known.photos) or not len(queries.photos):
            raise DataContractError("none of the photos to probe with is readable")
        labels = [[str(x) for x in sample.photos.labels] for sample in (known, queries)]
        return knn_accuracy(known.vectors, labels[0], queries.vectors, labels[1])
