"""Quantize a backbone, so that CPUs compute it in eight bits, and register it.

    python -m jobs.quantize_backbone --manifest manifest --backbone models:/listing-backbone/1 \
        --output quantized

Photos of the manifest show which range the network's values take. A head is learned on labelled
photos before and after: where the quantized one loses more than `--most-loss`, it is refused (exit
code 4). Its embeddings are its own: train heads and screeners on it, and embed the photos anew.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from jobs.command.photo_settings import PhotoSettings
from jobs.command.settings import check_arguments, run_job
from seer_model.backbones.constants import DEFAULT_BACKBONE


class QuantizeBackbone(PhotoSettings):
    """Quantize a backbone, so that CPUs compute it in eight bits, and register it."""

    manifest: str = Field(description="the manifest's folder")
    backbone: str = Field(DEFAULT_BACKBONE, description="as in train_head")
    output: Path = Field(description="folder for backbone/")
    registered_name: str | None = Field(None, description="register it under this name, too")
    splits: list[str] = Field(
        ["train"],
        description="quantize with photos of these splits (repeatable)",
    )
    check_splits: list[str] = Field(["val"], description="check on these splits (repeatable)")
    photos: int = Field(300, ge=8, description="photos to quantize with")
    check_photos: int = Field(
        2000, ge=1, description="labelled photos to check with, of each kind of split at most"
    )
    most_loss: float = Field(
        0.003, ge=0, le=1, description="share of right answers that may be lost"
    )


if __name__ == "__main__":
    check_arguments(QuantizeBackbone)  # Before the imports below, which take seconds.

from jobs.command import job_run
from jobs.command.report import write_report
from jobs.pretraining.photo_sample import embed_sample, sample_photos
from schemas.errors import DataContractError, GateRefusal, SettingsError
from seer_model.backbones.backbone import Backbone, save_backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.runtimes.base import CPU_BATCH
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.files import new_model
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from seer_model.photos.pixels import Pixels, load_photo
from seer_model.processes import scratch_folder
from seer_model.tracking import registration, registry, runs
from seer_model.training.quantized import compare_features

log = logging.getLogger(__name__)

_SEED = 1
_FEWEST_CLASSES = 2
_ROUNDS, _BATCHES = 5, 8


class _Check(NamedTuple):
    """Photos that both networks embedded; vectors are float16, (photos, width)."""

    labels: npt.NDArray[np.str_]
    before: npt.NDArray[np.float16]
    after: npt.NDArray[np.float16]


def quantize_backbone(settings: QuantizeBackbone) -> None:
    """Quantize, check, write, register, report."""
    started = perf_counter()
    if not find_spec("nncf"):
        raise SettingsError(
            "quantizing needs nncf, which is not installed; pip install 'seer-categories[quantize]'"
        )
    from seer_model.backbones.runtimes.quantization import quantize  # noqa: PLC0415 - optional

    runs.connect(settings.tracking_uri)
    backbone = registry.resolve_backbone(settings.backbone)
    if backbone.quantized:
        raise SettingsError(f"--backbone {settings.backbone}: is quantized already")
    with (
        runs.tracked_run("quantize_backbone", settings.run_parameters()) as run_id,
        tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch,
    ):
        job_run.reads(settings.manifest)
        job_run.reads_model(settings.backbone, backbone.digest[:12])
        limits = settings.photo_limits()
        photos = _decoded(settings, backbone.preprocessing.image_size, limits)
        quantized = quantize(backbone, photos, Path(scratch))
        figures = {
            "backbone": f"{backbone.architecture}: {backbone.origin}",
            "backbone_digest": quantized.digest,
            "licence": backbone.licence,
            "photos": len(photos),
            **_check(settings, backbone, quantized, limits),
            **_speeds(backbone, quantized, photos),
        }
        runs.log_figures(figures)
        folder = settings.output / "backbone"
        with new_model(folder, "backbone.json", "a backbone") as new:
            save_backbone(quantized, new)
        figures["output"] = str(folder)
        if settings.registered_name is not None:
            figures["version"] = _register(folder, settings.registered_name)
        figures |= {"run_id": run_id, "seconds": round(perf_counter() - started, 1)}
        write_report(figures, settings.report)


def _decoded(settings: QuantizeBackbone, size: int, limits: PhotoLimits) -> list[Pixels]:
    """The photos to quantize with, without those that cannot be used.

    Raises:
        DataContractError: There are too few.
    """
    sample = sample_photos(
        settings.manifest, settings.splits, settings.photos, labelled=False, seed=_SEED
    )
    found = []
    for source in sample.sources:
        with suppress(PhotoRejected):
            found.append(load_photo(source, size, limits))
    if len(found) < CPU_BATCH:
        raise DataContractError(
            f"{settings.manifest}: {len(found)} photos of {', '.join(settings.splits)} can be "
            f"used, and quantizing takes {CPU_BATCH} at least"
        )
    return found


def _check(
    settings: QuantizeBackbone, backbone: Backbone, quantized: Backbone, limits: PhotoLimits
) -> dict[str, Any]:
    """Compare features, and what a head learns from them where there are labels.

    Raises:
        GateRefusal: Too many right answers are lost.
    """
    embedders = [
        PhotoEmbedder.open(each, threads=os.cpu_count() or 1, limits=limits)
        for each in (backbone, quantized)
    ]

    def embed(splits: list[str], *, labelled: bool) -> _Check:
        count, where = settings.check_photos, settings.manifest
        sample = sample_photos(where, splits, count, labelled=labelled, seed=_SEED + 1)
        before, after = (embed_sample(embedder, sample) for embedder in embedders)
        labels = np.array(before.photos.labels, np.str_)
        return _Check(labels, before.vectors, after.vectors)

    learned, asked = (
        embed(splits, labelled=True) for splits in (settings.splits, settings.check_splits)
    )
    classes = np.unique(learned.labels)
    known = np.isin(asked.labels, classes)
    if len(classes) < _FEWEST_CLASSES or not known.any():
        compared = embed(settings.splits, labelled=False)
        log.warning("no labels to check with: only the features were compared")
        return _cosines(compared)
    quality = compare_features(
        (learned.before, asked.before[known]),
        (learned.after, asked.after[known]),
        np.searchsorted(classes, learned.labels),
        np.searchsorted(classes, asked.labels[known]),
    )
    if quality.loss_at_least > settings.most_loss:
        raise GateRefusal(
            f"the quantized network loses at least {quality.loss_at_least:.3f} of right answers "
            f"({quality.top1:.3f}, before {quality.top1_before:.3f}), more than --most-loss "
            f"{settings.most_loss}; nothing is written"
        )
    return {**_cosines(asked), **quality._asdict()}


def _cosines(check: _Check) -> dict[str, float]:
    before, after = (each.astype(np.float64) for each in (check.before, check.after))
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosines = (before * after).sum(axis=1) / np.maximum(norms, 1e-12)
    return {"cosine": float(cosines.mean()), "least_cosine": float(cosines.min())}


def _speeds(backbone: Backbone, quantized: Backbone, photos: list[Pixels]) -> dict[str, Any]:
    """How fast one core of this machine computes both, in turns."""
    batch = np.stack(photos[:CPU_BATCH])
    runtimes = [open_runtime(each) for each in (backbone, quantized)]
    seconds: list[list[float]] = [[], []]
    for _ in range(_ROUNDS):
        for runtime, taken in zip(runtimes, seconds, strict=True):
            began = process_time()
            for _ in range(_BATCHES):
                runtime.start(batch)()
            taken.append(process_time() - began)
    before, after = (_BATCHES * CPU_BATCH / min(taken) for taken in seconds)
    return {
        "computed_before": runtimes[0].name,
        "photos_per_second_before": round(before, 1),
        "photos_per_second": round(after, 1),
    }


def _register(folder: Path, name: str) -> str:
    with registration.keep_on_failure(name, lambda: folder):
        return registration.register_backbone(folder, name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(QuantizeBackbone, quantize_backbone, argv)


if __name__ == "__main__":
    sys.exit(main())
