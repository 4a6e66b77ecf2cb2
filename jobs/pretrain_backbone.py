r"""Pretrain a backbone on a manifest's photos, without their labels, and register it.

    python -m jobs.pretrain_backbone --manifest manifest --output pretraining \
        --architecture regnety_008 --epochs 100 --batch-size 256

Writes `checkpoints/`, `epochs.json`, `backbone/`, `card.md` and `neighbours.png`, with `--quantize`
`quantized/backbone/`, too. The same command with `--resume` continues a run that was stopped; it is
idempotent. Several processes on this machine are started through Spark's TorchDistributor; a single
one needs no Spark.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from jobs.command.settings import check_arguments, run_job
from jobs.pretraining.settings import PretrainBackbone
from seer_model.training.threads import share_cores

if __name__ == "__main__":
    check_arguments(PretrainBackbone)  # Before the imports below, which take seconds.
share_cores()  # Before torch is imported.

import torch

from jobs.command import job_run
from jobs.command.report import write_report
from jobs.pretraining.distributed import train_together
from jobs.pretraining.neighbour_sheet import draw_neighbours
from jobs.pretraining.photo_sample import embed_sample, sample_photos
from jobs.pretraining.training import Training, read_epochs, train
from schemas.errors import SettingsError
from seer_model.backbones.backbone import Backbone, load_backbone, save_backbone
from seer_model.backbones.constants import PHOTOS_SHOWN, STAGES
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.files import new_model
from seer_model.tracking import registration, registry, runs
from seer_model.training.precision import uses_bf16
from seer_model.training.quantizing import LabelledSources, quantize_or_keep

_SHEET_PHOTOS = 1000


def pretrain(settings: PretrainBackbone) -> None:
    """Train, draw the contact sheet, write the card, register, report.

    The MLflow run has the figures of every epoch as metrics, with the epoch as their step.
    """
    tracking_uri = runs.connect(settings.tracking_uri)
    settings.output.mkdir(parents=True, exist_ok=True)
    device = _device(settings.device)
    with runs.tracked_run("pretrain_backbone", settings.run_parameters()) as run_id:
        job_run.reads(settings.manifest)
        started = perf_counter()
        training = Training(
            settings,
            device,
            run_id,
            start=_copy(settings, "start-from", settings.start_from, "start"),
            teacher=_copy(settings, "teacher", settings.teacher, "teacher"),
        )
        if settings.num_processes == 1:
            train(training)
        else:
            train_together(training, settings.num_processes, tracking_uri)
        seconds = perf_counter() - started
        backbone = load_backbone(settings.output / "backbone")
        last = read_epochs(settings.output)[-1]
        _draw_sheet(settings, backbone, device)
        _write_card(settings, backbone, last)
        version = _register(settings, "backbone")
        quantized = _quantize(settings, backbone) if settings.quantize else None
        job_run.writes(f"models:/{settings.registered_name}", version=version)
        runs.log_figures({"seconds": seconds, "processes": settings.num_processes})
        figures = {
            "backbone": f"models:/{settings.registered_name}/{version}",
            "version": version,
            "backbone_digest": backbone.digest,
            "architecture": backbone.architecture,
            "licence": backbone.licence,
            "origin": backbone.origin,
            **last,
            "quantized": quantized,
            "processes": settings.num_processes,
            "device": device,
            "bf16": uses_bf16(torch.device(device), settings.bf16),
            "seconds": round(seconds, 1),
            "output": str(settings.output),
            "run_id": run_id,
        }
        write_report(figures, settings.report)


def _device(name: str) -> str:
    available = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if available else "cpu"
    if re.fullmatch(r"cpu|cuda(:\d+)?", name) is None or (name != "cpu" and not available):
        raise SettingsError(f"--device {name}: not auto, cpu, cuda or cuda:N, or there is no GPU")
    return name


def _copy(settings: PretrainBackbone, flag: str, uri: str | None, name: str) -> Path | None:
    """Copy a backbone to the output folder, where every process can read it.

    Raises:
        SettingsError: Its licence would also apply to the new weights, and is not theirs.
    """
    if uri is None:
        return None
    backbone = registry.resolve_backbone(uri)
    if not backbone.commercial and backbone.licence != settings.licence.lower():
        raise SettingsError(
            f"--{flag} {uri}: its licence, {backbone.licence}, also applies to weights derived "
            f"from it; give --licence {backbone.licence}"
        )
    folder = settings.output / name
    save_backbone(backbone, folder)
    return folder


def _draw_sheet(settings: PretrainBackbone, backbone: Backbone, device: str) -> None:
    """Draw nearest neighbours of labelled photos, or of any photos where there are no labels."""
    limits = settings.photo_limits()
    embedder = PhotoEmbedder.open(backbone, device, threads=os.cpu_count() or 1, limits=limits)
    splits = settings.probe_splits or ["train", "val"]
    known, queries = (
        sample_photos(settings.manifest, [split], _SHEET_PHOTOS, labelled=True, seed=1)
        for split in splits
    )
    if not len(known) or not len(queries):
        among = settings.splits or None
        known = sample_photos(settings.manifest, among, _SHEET_PHOTOS, labelled=False, seed=1)
        queries = known
    embedded = embed_sample(embedder, known)
    asked = embedded if queries is known else embed_sample(embedder, queries)
    sheet = settings.output / "neighbours.png"
    draw_neighbours(embedded, asked, limits).save(sheet)
    runs.log_file(sheet)


def _write_card(settings: PretrainBackbone, backbone: Backbone, last: dict[str, Any]) -> None:
    """Write the model card: origin, licence, command, figures and recipe."""
    figures = "\n".join(
        f"| {name} | {value if isinstance(value, int) else format(value, '.4g')} |"
        for name, value in last.items()
    )
    recipe = "\n".join(f"| {k} | {v} |" for k, v in settings.recipe().to_json().items())
    splits = ", ".join(settings.splits) or "all"
    way = "with SwAV" if settings.teacher is None else f"by distillation of {settings.teacher}"
    card = settings.output / "card.md"
    card.write_text(
        f"""# {backbone.architecture}, pretrained {way}

{backbone.origin}. Licence of the weights: {backbone.licence}.

- Data: `{settings.manifest}`, splits: {splits}. No labels of these photos were used.
{_teacher_line(settings)}- Digest: `{backbone.digest}`
- Features: {backbone.width}, of the last {backbone.feature_stages} of {STAGES} stages

```sh
{settings.command()}
```

## Figures of the last epoch

`knn_accuracy`: share of photos whose category gets the most votes from their 20 nearest labelled
photos.

| figure | value |
|---|---|
{figures}

## Recipe

| setting | value |
|---|---|
{recipe}
""",
        encoding="utf-8",
    )
    runs.log_file(card)


def _teacher_line(settings: PretrainBackbone) -> str:
    """Origin and licence of the teacher, and so of the labels behind it."""
    if settings.teacher is None:
        return ""
    teacher = load_backbone(settings.output / "teacher")
    return f"- Teacher: {teacher.architecture}, {teacher.origin}; licence {teacher.licence}\n"


def _quantize(settings: PretrainBackbone, backbone: Backbone) -> dict[str, Any] | None:
    """Quantize the backbone, check it on the probe's photos, register it; None if it loses."""
    learned, asked = (
        _labelled(settings, split) for split in settings.probe_splits or ["train", "val"]
    )
    shown = sample_photos(
        settings.manifest, settings.splits or None, PHOTOS_SHOWN, labelled=False, seed=1
    )
    limits = settings.photo_limits()
    made = quantize_or_keep(backbone, shown.sources, learned, asked, limits)
    if not made.backbone.quantized:
        return None
    with new_model(
        settings.output / "quantized" / "backbone", "backbone.json", "a backbone"
    ) as new:
        save_backbone(made.backbone, new)
    version = _register(settings, "quantized/backbone")
    return {
        "backbone": f"models:/{settings.registered_name}/{version}",
        "backbone_digest": made.backbone.digest,
        **made.figures,
    }


def _labelled(settings: PretrainBackbone, split: str) -> LabelledSources:
    sample = sample_photos(settings.manifest, [split], settings.probe_photos, labelled=True, seed=1)
    return LabelledSources(sample.sources, [label for label in sample.labels if label is not None])


def _register(settings: PretrainBackbone, made: str) -> str:
    """Register what was made, a folder of the output; returns its version."""
    folder, name = settings.output / made, settings.registered_name
    with registration.keep_on_failure(name, lambda: folder):
        return registration.register_backbone(folder, name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(PretrainBackbone, pretrain, argv)


if __name__ == "__main__":
    sys.exit(main())
