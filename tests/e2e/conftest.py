"""The pretraining job on two dozen drawn photos, with a folder and a database a test file."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession

from demo.samples.products import KINDS
from demo.samples.scenes import draw_scene
from jobs import pretrain_backbone
from tests.support.conversions import convert_once
from tests.support.pretraining_jobs import Pretrain, encode, write_manifest
from tests.support.spark_python import CONVERSIONS
from tests.support.tracking_database import new_database

TINY = {
    "architecture": "regnety_002",
    "epochs": 2,
    "batch-size": 8,
    "photo-size": 40,
    "large-size": 32,
    "small-size": 16,
    "small-crops": 1,
    "prototypes": 12,
    "projection": "32,16",
    # A collapse raises no alarm during the warm-up, and so little training may well look like one.
    "warmup-epochs": 2,
    "probe-every": 1,
    "device": "cpu",
}


@pytest.fixture(scope="session", autouse=True)
def _converted_once() -> None:
    convert_once(Path(os.environ[CONVERSIONS]))


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    drawn = [
        draw_scene(KINDS[n // 2 % 3], n // 2, np.random.default_rng(n)).resize((96, 96))
        for n in range(25)
    ]
    return [encode(image) for image in drawn]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Path:
    torch.set_num_threads(1)
    work = tmp_path_factory.mktemp("pretrain")
    new_database(work)
    return work


@pytest.fixture(scope="module")
def manifest(work: Path, photos: list[bytes]) -> Path:
    return write_manifest(work / "manifest", photos)


@pytest.fixture(scope="module")
def pretrain(work: Path, manifest: Path) -> Pretrain:
    """Runs the job and gives its exit code; the report is beside the output."""

    def run(output: str, *flags: str, without: Sequence[str] = (), **changes: Any) -> int:
        options = {name: value for name, value in TINY.items() if name not in without} | {
            "manifest": manifest,
            "output": work / output,
            "tracking-uri": f"sqlite:///{work / 'mlflow.db'}",
            "report": work / f"{output}.json",
        }
        options |= {name.replace("_", "-"): value for name, value in changes.items()}
        argv = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        return pretrain_backbone.main([*argv, "--no-bf16", *flags])

    return run
