"""Flags of the pretraining job."""

import shlex
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from jobs.command.photo_settings import PhotoSettings
from jobs.command.settings import JobSettings
from seer_model.backbones.constants import STAGES
from seer_model.training.pretraining.recipe import Recipe, RecipeFlags

__all__ = ["PretrainBackbone"]

_SWAV_ONLY = {"prototypes", "projection", "epsilon", "queue_length"}
_TEACHER_ONLY = {"teacher_size", "teacher_epochs"}


class _RunSettings(PhotoSettings):
    """Where a training reads, writes and runs."""

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
    teacher: str | None = Field(
        None,
        description="learn to give this network's features instead of SwAV: lite:2, "
        "timm:NAME.TAG, timm:NAME@FILE, a folder, models:/…",
    )
    quantize: bool = Field(
        False,
        description="then make one of it that CPUs compute in eight bits, registered as the next "
        "version; needs nncf",
    )
    resume: bool = Field(False, description="go on from the last checkpoint in --output")
    num_processes: int = Field(1, ge=1, description="processes on this machine, one for each GPU")
    device: str = Field("auto", description="auto (CUDA where there is a GPU), cpu, cuda or cuda:N")
    checkpoint_steps: int = Field(500, ge=1, description="steps between checkpoints")


# `--help` lists the flags of the last base class first.
class PretrainBackbone(RecipeFlags, _RunSettings):
    """Pretrain a backbone on photos without labels, with SwAV or a teacher, and register it."""

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

    @field_validator("manifest")
    @classmethod
    def _is_a_path(cls, manifest: str) -> str:
        if manifest.startswith("table:"):
            raise ValueError(f"{manifest}: photos are read without Spark; name a folder of Parquet")
        return manifest

    @field_validator("probe_splits")
    @classmethod
    def _is_none_or_a_pair(cls, splits: list[str]) -> list[str]:
        if len(splits) not in (0, 2):
            raise ValueError("give two splits, as train,val")
        return splits

    @model_validator(mode="after")
    def _fits_the_way_of_learning(self) -> Self:
        useless = _SWAV_ONLY if self.teacher else _TEACHER_ONLY
        given = sorted(useless & self.model_fields_set)
        if given:
            flag = f"--{given[0].replace('_', '-')}"
            raise ValueError(
                f"{flag} has no meaning {'with' if self.teacher else 'without'} --teacher"
            )
        return self

    def recipe(self) -> Recipe:
        """The settings that shape the weights."""
        return Recipe(**{name: getattr(self, name) for name in RecipeFlags.model_fields})

    def command(self) -> str:
        """The command as it was typed, without addresses that may hold a password."""
        words = ["python", "-m", "jobs.pretrain_backbone"]
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name not in self.model_fields_set or name in JobSettings.model_fields:
                continue
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                shown = ",".join(map(str, value)) if isinstance(value, list) else str(value)
                words += [f"--{flag}", shown]
        return shlex.join(words)
