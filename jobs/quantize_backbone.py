"""Quantize a backbone, so that CPUs compute it in eight bits, and register it.

    python -m jobs.quantize_backbone --manifest manifest --backbone models:/listing-backbone/1 \
        --output quantized

Photos of the manifest show which range the network's values take. A head is learned on labelled
photos before and after: where the quantized one loses more than `--most-loss`, it is refused (exit
code 4). Its embeddings are its own: train heads and screeners on it, and embed the photos anew.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from pydantic import Field

from jobs.command.photo_settings import PhotoSettings
from jobs.command.settings import check_arguments, run_job
from seer_model.backbones.constants import FLOAT_BACKBONE, MOST_LOSS, PHOTOS_SHOWN


class QuantizeBackbone(PhotoSettings):
    """Quantize a backbone, so that CPUs compute it in eight bits, and register it."""

    manifest: str = Field(description="the manifest's folder")
    backbone: str = Field(FLOAT_BACKBONE, description="as in train_head")
    output: Path = Field(description="folder for backbone/")
    registered_name: str | None = Field(None, description="register it under this name, too")
    splits: list[str] = Field(
        ["train"],
        description="quantize with photos of these splits (repeatable)",
    )
    check_splits: list[str] = Field(["val"], description="check on these splits (repeatable)")
    photos: int = Field(PHOTOS_SHOWN, ge=8, description="photos to quantize with")
    check_photos: int = Field(
        2000, ge=1, description="labelled photos to check with, of each kind of split at most"
    )
    most_loss: float = Field(
        MOST_LOSS, ge=0, le=1, description="share of right answers that may be lost"
    )


if __name__ == "__main__":
    check_arguments(QuantizeBackbone)  # Before the imports below, which take seconds.

from jobs.command import job_run
from jobs.command.report import write_report
from jobs.pretraining.photo_sample import sample_photos
from schemas.errors import SettingsError
from seer_model.backbones.backbone import save_backbone
from seer_model.files import new_model
from seer_model.processes import scratch_folder
from seer_model.tracking import registration, registry, runs
from seer_model.training.quantizing import LabelledSources, quantize_checked

_SEED = 1


def quantize_backbone(settings: QuantizeBackbone) -> None:
    """Quantize, check, write, register, report."""
    started = perf_counter()
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
        shown = sample_photos(
            settings.manifest, settings.splits, settings.photos, labelled=False, seed=_SEED
        )
        learned, asked = (
            _labelled(settings, splits) for splits in (settings.splits, settings.check_splits)
        )
        made = quantize_checked(
            backbone,
            shown.sources,
            learned,
            asked,
            Path(scratch),
            limits=settings.photo_limits(),
            most_loss=settings.most_loss,
        )
        figures = {
            "backbone": f"{backbone.architecture}: {backbone.origin}",
            "backbone_digest": made.backbone.digest,
            "licence": backbone.licence,
            **made.figures,
        }
        runs.log_figures(figures)
        folder = settings.output / "backbone"
        with new_model(folder, "backbone.json", "a backbone") as new:
            save_backbone(made.backbone, new)
        figures["output"] = str(folder)
        if settings.registered_name is not None:
            figures["version"] = _register(folder, settings.registered_name)
        figures |= {"run_id": run_id, "seconds": round(perf_counter() - started, 1)}
        write_report(figures, settings.report)


def _labelled(settings: QuantizeBackbone, splits: list[str]) -> LabelledSources:
    sample = sample_photos(
        settings.manifest, splits, settings.check_photos, labelled=True, seed=_SEED + 1
    )
    return LabelledSources(sample.sources, [label for label in sample.labels if label is not None])


def _register(folder: Path, name: str) -> str:
    with registration.keep_on_failure(name, lambda: folder):
        return registration.register_backbone(folder, name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(QuantizeBackbone, quantize_backbone, argv)


if __name__ == "__main__":
    sys.exit(main())
