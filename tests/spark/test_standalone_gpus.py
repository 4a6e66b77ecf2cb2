"""GPUs on a cluster: every task of the main job uses the one that Spark gave it."""

import json
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pyarrow as pa
import pytest

from tests.spark.standalone_cluster import Job, assert_published, run_job, submit, worker

pytestmark = [pytest.mark.spark, pytest.mark.slow]

PROBE = """
import json, os, sys
from unittest import mock

import pandas as pd
import torch
from pyspark import TaskContext

import jobs.worker
from jobs.session import start_session


def look(batches):
    for _ in batches:
        fallback, again = jobs.worker.task_device(), jobs.worker.task_device()
        with mock.patch.object(torch.cuda, "is_available", return_value=True):
            cuda = jobs.worker.task_device()
        given = TaskContext.get().resources()["gpu"].addresses
        row = [os.getpid(), *given, cuda.torch_name, fallback.torch_name, again.label]
        yield pd.DataFrame([[*row, jobs.worker.__file__]])


spark = start_session("probe")
columns = "pid long, given string, cuda string, fallback string, label string, code string"
rows = spark.range(0, 8, numPartitions=8).mapInPandas(look, columns).toPandas()
rows.to_json(sys.argv[1], orient="records")
"""


def test_every_task_uses_the_gpu_that_spark_gave_it(
    master: str,
    package: Path,
    job: Job,
    read_categories: Callable[[Path], pa.Table],
    runtime: str,
    tmp_path: Path,
) -> None:
    discovery = tmp_path / "discover.sh"
    discovery.write_text('#!/bin/sh\necho \'{"name": "gpu", "addresses": ["0", "1"]}\'\n')
    discovery.chmod(0o755)
    resources = tmp_path / "worker.conf"
    resources.write_text(
        dedent(f"""\
            spark.worker.resource.gpu.amount 2
            spark.worker.resource.gpu.discoveryScript {discovery}
            """)
    )
    conf = {
        "spark.executor.cores": 2,
        "spark.executor.memory": "512m",
        "spark.executor.resource.gpu.amount": 2,
        "spark.task.resource.gpu.amount": 1,
        "spark.default.parallelism": 6,
    }
    probe, seen = tmp_path / "probe.py", tmp_path / "seen.json"
    probe.write_text(PROBE)
    with worker(master, tmp_path / "worker", 2, resources) as work:
        report = run_job(job, package, master, conf)
        before = set(work.iterdir())
        submit(job.folder, package, master, conf, probe, seen)
        (application,) = set(work.iterdir()) - before
        logs = [log.read_text() for log in application.glob("*/stderr")]
    assert_published(job, read_categories)
    fallback = "on the CPU for want of CUDA"
    assert report["devices"].keys() == {f"gpu {n}, {fallback} ({runtime})" for n in (0, 1)}
    assert sum(report["devices"].values()) == job.listings.total()

    tasks = json.loads(seen.read_text())
    assert len(tasks) == 8
    assert {task["given"] for task in tasks} == {"0", "1"}
    for task in tasks:
        assert task["label"] == f"gpu {task['given']}, {fallback}"
        assert task["fallback"] == "cpu"
        assert task["cuda"] == f"cuda:{task['given']}"
        assert task["code"].endswith(f"{package.name}/jobs/worker.py")
    (log,) = logs
    processes = {task["pid"] for task in tasks}
    assert log.count("torch finds no CUDA") == len(processes) < len(tasks)
