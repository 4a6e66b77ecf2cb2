"""Executors with GPUs whose tasks hold one only while they embed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.spark.conftest import master
from tests.support.standalone_cluster import (
    Job,
    assert_published,
    gpu_resources,
    run_job,
    worker,
)

__all__ = ["master"]

pytestmark = [pytest.mark.lake, pytest.mark.spark, pytest.mark.slow]


def events_of(folder: Path) -> Iterator[dict[str, Any]]:
    for file in folder.rglob("events_*"):
        yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


def test_only_the_embedding_stage_holds_gpus(
    master: str,
    package: Path,
    job: Job,
    read_categories: Callable[[Path], pa.Table],
    tmp_path: Path,
) -> None:
    resources = gpu_resources(tmp_path, 1)
    (tmp_path / "events").mkdir()
    conf = {
        "spark.executor.cores": 2,
        "spark.executor.memory": "512m",
        "spark.executor.resource.gpu.amount": 1,
        "spark.eventLog.enabled": "true",
        "spark.eventLog.compress": "false",
        "spark.eventLog.dir": (tmp_path / "events").as_uri(),
    }
    with worker(master, tmp_path / "worker", 2, resources):
        report = run_job(job, package, master, conf)
    assert_published(job, read_categories)
    (device,) = report["devices"]
    assert device.startswith("gpu 0, on the CPU for want of CUDA")

    events = list(events_of(tmp_path / "events"))
    (embedding,) = (
        event
        for event in events
        if event["Event"] == "SparkListenerResourceProfileAdded"
        and "gpu" in event["Task Resource Requests"]
    )
    needs = embedding["Task Resource Requests"]
    assert {name: need["Amount"] for name, need in needs.items()} == {"cpus": 2, "gpu": 1}
    stages = [
        event["Stage Info"] for event in events if event["Event"] == "SparkListenerStageSubmitted"
    ]
    with_gpu = [
        stage
        for stage in stages
        if stage["Resource Profile Id"] == embedding["Resource Profile Id"]
    ]
    assert len(with_gpu) == 1
    assert len(stages) > 10
