r"""Pretrain a backbone on a manifest's photos, which need no labels, and register it.

    python -m jobs.pretrain_backbone --manifest manifest --output pretraining \
        --architecture regnety_008 --epochs 100 --batch-size 256

Writes `checkpoints/`, `epochs.json`, `backbone/`, `card.md` and `neighbours.png`. The same command
with `--resume` goes on where a run that was stopped left off, and does nothing twice. One process
runs by itself; more are started through Spark's TorchDistributor, on this machine.
"""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator

from jobs.neighbour_sheet import draw_neighbours
from jobs.photo_sample import embed_sample, sample_photos
from jobs.photo_settings import PhotoSettings
from jobs.pretraining import Training, read_epochs, train
from jobs.report import write_report
from jobs.settings import run_job
from jobs.together import train_together
from schemas.errors import SettingsError
from seer_model import registry
from seer_model.backbone import Backbone, load_backbone, save_backbone
from seer_model.embedder import PhotoEmbedder
from seer_model.pretraining.recipe import Recipe
from seer_model.trunk import STAGES

_DEFAULT = Recipe()
_SHEET_PHOTOS = 1000


class PretrainBackbone(PhotoSettings):
    """Pretrain a backbone with SwAV on photos without labels, and register it."""

    manifest: str = Field(description="the manifest's folder")
    output: Path = Field(description="folder for checkpoints, backbone, card and contact sheet")
    registered_name: str = Field("listing-backbone", description="name in the registry")
    splits: list[str] = Field([], description="train on these splits (repeatable; default: all)")
    licence: str = Field(
        "proprietary",
        description="licence of the weights: proprietary (your photos, your weights) or SPDX",
    )
    start_from: str | None = Field(
        None,
        description="go on from this backbone's weights: a folder, models:/…, timm:…, zoo:… "
        "(default: random weights)",
    )
    resume: bool = Field(False, description="go on from the last checkpoint in --output")
    num_processes: int = Field(1, ge=1, description="processes on this machine, one for each GPU")
    device: str = Field("auto", description="auto (CUDA where there is a GPU), cpu, cuda or cuda:N")
    checkpoint_steps: int = Field(500, ge=1, description="steps between checkpoints")

    architecture: str = Field(_DEFAULT.architecture, description="timm's name of a RegNetY")
    epochs: int = Field(_DEFAULT.epochs, description="passes over the photos")
    batch_size: int = Field(_DEFAULT.batch_size, description="photos a step, of all processes")
    photo_size: int = Field(_DEFAULT.photo_size, description="pixels that photos are decoded to")
    large_size: int = Field(_DEFAULT.large_size, description="pixels of a large crop's side")
    small_size: int = Field(_DEFAULT.small_size, description="pixels of a small crop's side")
    small_crops: int = Field(_DEFAULT.small_crops, ge=0, description="small crops of each photo")
    large_scale: list[float] = Field(
        list(_DEFAULT.large_scale), description="LOW,HIGH: share of a photo in a large crop"
    )
    small_scale: list[float] = Field(
        list(_DEFAULT.small_scale), description="LOW,HIGH: share of a photo in a small crop"
    )
    colour_strength: float = Field(
        _DEFAULT.colour_strength,
        ge=0,
        le=1,
        description="of the colour jitter; less where kinds differ by colour",
    )
    prototypes: int = Field(
        _DEFAULT.prototypes, ge=2, description="some ten times the kinds of things in the photos"
    )
    projection: list[int] = Field(
        list(_DEFAULT.projection), description="widths of the projection head, as 2048,256"
    )
    epsilon: float = Field(
        _DEFAULT.epsilon, description="of Sinkhorn-Knopp; smaller makes assignments sharper"
    )
    queue_length: int = Field(
        _DEFAULT.queue_length, description="embeddings remembered, for small batches; 0 for none"
    )
    optimiser: Literal["larc", "adamw"] = Field(
        _DEFAULT.optimiser, description="larc for batches of thousands, adamw for smaller ones"
    )
    learning_rate: float = Field(_DEFAULT.learning_rate, gt=0, description="the highest")
    warmup_epochs: float = Field(_DEFAULT.warmup_epochs, ge=0, description="epochs of warm-up")
    weight_decay: float = Field(_DEFAULT.weight_decay, ge=0, description="of weight matrices")
    bf16: bool = Field(_DEFAULT.bf16, description="compute the trunk in bfloat16")
    checkpoint_trunk: bool = Field(
        _DEFAULT.checkpoint_trunk, description="less memory for more time in the trunk"
    )
    seed: int = Field(_DEFAULT.seed, ge=0, description="of weights, order and crops")

    feature_stages: int = Field(
        STAGES, ge=1, le=STAGES, description="stages, counted from the last, to take features of"
    )
    probe_splits: list[str] = Field(
        [], description="TRAIN,QUERY to probe with (default: train,val where they have labels)"
    )
    probe_every: int = Field(5, ge=0, description="epochs between probes; 0 for none")
    probe_photos: int = Field(
        4000, ge=1, description="labelled photos to probe with, and a quarter as many to ask of"
    )

    @model_validator(mode="after")
    def _in_pairs(self) -> Self:
        if len(self.probe_splits) not in (0, 2):
            raise ValueError("--probe-splits takes two, as train,val")
        if len(self.large_scale) != 2 or len(self.small_scale) != 2:
            raise ValueError("--large-scale and --small-scale take two, as 0.14,1")
        return self

    def recipe(self) -> Recipe:
        """The flags that shape the weights."""
        given: dict[str, Any] = {}
        for name in (field.name for field in fields(Recipe) if hasattr(self, field.name)):
            value = getattr(self, name)
            given[name] = tuple(value) if isinstance(value, list) else value
        return Recipe(**given)

    def command(self) -> str:
        """What was typed, but for what may hold a password."""
        words = ["python", "-m", "jobs.pretrain_backbone"]
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name not in self.model_fields_set or name in ("tracking_uri", "report"):
                continue
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                shown = ",".join(map(str, value)) if isinstance(value, list) else str(value)
                words += [f"--{flag}", shown]
        return shlex.join(words)


def pretrain(settings: PretrainBackbone) -> None:
    """Train, draw, describe, register, report.

    The run has the figures of every epoch as metrics, with the epoch as their step.
    """
    recipe = settings.recipe()
    tracking_uri = registry.connect(settings.tracking_uri)
    settings.output.mkdir(parents=True, exist_ok=True)
    device = _device(settings.device)
    parameters = settings.model_dump(exclude={"tracking_uri", "report"})
    with registry.tracked_run("pretrain_backbone", parameters) as run_id:
        started = perf_counter()
        training = Training(
            recipe=recipe,
            manifest=settings.manifest,
            splits=tuple(settings.splits) or None,
            output=settings.output,
            device=device,
            resume=settings.resume,
            checkpoint_steps=settings.checkpoint_steps,
            licence=settings.licence.lower(),
            feature_stages=settings.feature_stages,
            probe_splits=_pair(settings.probe_splits),
            probe_every=settings.probe_every,
            probe_photos=settings.probe_photos,
            run_id=run_id,
            limits=settings.photo_limits(),
            start=_start(settings),
        )
        if settings.num_processes == 1:
            train(training)
        else:
            train_together(training, settings.num_processes, tracking_uri)
        seconds = perf_counter() - started
        backbone = load_backbone(settings.output / "backbone")
        sheet = settings.output / "neighbours.png"
        _draw_sheet(settings, backbone, device, sheet)
        last = read_epochs(settings.output)[-1]
        card = settings.output / "card.md"
        card.write_text(_card(settings, backbone, last), encoding="utf-8")
        for path in (sheet, card):
            registry.log_file(path)
        folder, name = settings.output / "backbone", settings.registered_name
        with registry.registering(name, lambda: folder):
            version = registry.register_backbone(folder, name)
        figures = {
            "backbone": f"models:/{name}/{version}",
            "version": version,
            "backbone_digest": backbone.digest,
            "architecture": backbone.architecture,
            "licence": backbone.licence,
            "origin": backbone.origin,
            **last,
            "processes": settings.num_processes,
            "device": device,
            "seconds": round(seconds, 1),
            "output": str(settings.output),
            "run_id": run_id,
        }
        registry.log_figures({"seconds": seconds, "processes": settings.num_processes})
        write_report(figures, settings.report)


def _device(name: str) -> str:
    available = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if available else "cpu"
    if re.fullmatch(r"cpu|cuda(:\d+)?", name) is None or (name != "cpu" and not available):
        raise SettingsError(f"--device {name}: not auto, cpu, cuda or cuda:N, or there is no GPU")
    return name


def _start(settings: PretrainBackbone) -> Path | None:
    """A copy in the output folder of the weights to start from, for every process to read."""
    if settings.start_from is None:
        return None
    start = registry.resolve_backbone(settings.start_from)
    if not start.commercial and start.licence != settings.licence.lower():
        raise SettingsError(
            f"--start-from {settings.start_from}: its licence, {start.licence}, is also that of "
            f"what is made from it; give --licence {start.licence}"
        )
    folder = settings.output / "start"
    save_backbone(start, folder)
    return folder


def _pair(splits: Sequence[str]) -> tuple[str, str] | None:
    return (splits[0], splits[1]) if splits else None


def _draw_sheet(settings: PretrainBackbone, backbone: Backbone, device: str, sheet: Path) -> None:
    """Of the photos to probe with; where there are none, of any."""
    limits = settings.photo_limits()
    embedder = PhotoEmbedder.open(backbone, device, threads=os.cpu_count() or 1, limits=limits)
    splits = settings.probe_splits or ["train", "val"]
    known, asked = (
        sample_photos(settings.manifest, [split], _SHEET_PHOTOS, labelled=True, seed=1)
        for split in splits
    )
    if not len(known) or not len(asked):
        among = settings.splits or None
        known = sample_photos(settings.manifest, among, _SHEET_PHOTOS, labelled=False, seed=1)
        asked = known
    photos = embed_sample(embedder, known)
    queries = photos if asked is known else embed_sample(embedder, asked)
    draw_neighbours(photos, queries, limits).save(sheet)


def _card(settings: PretrainBackbone, backbone: Backbone, last: dict[str, Any]) -> str:
    """What a person must know to use the weights."""
    figures = "\n".join(
        f"| {name} | {value if isinstance(value, int) else format(value, '.4g')} |"
        for name, value in last.items()
    )
    recipe = "\n".join(f"| {k} | {v} |" for k, v in settings.recipe().to_json().items())
    splits = ", ".join(settings.splits) or "all"
    return f"""# {backbone.architecture}, pretrained with SwAV

{backbone.origin}. Licence of the weights: {backbone.licence}.

- Data: `{settings.manifest}`, splits: {splits}. No label was used.
- Digest: `{backbone.digest}`
- Features: {backbone.width}, of the last {backbone.feature_stages} of {STAGES} stages

```sh
{settings.command()}
```

## Figures of the last epoch

`knn_accuracy`: share of photos whose category their 20 nearest labelled photos vote for.

| figure | value |
|---|---|
{figures}

## Recipe

| setting | value |
|---|---|
{recipe}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(PretrainBackbone, pretrain, argv)


if __name__ == "__main__":
    sys.exit(main())
