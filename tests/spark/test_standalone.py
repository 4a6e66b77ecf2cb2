"""The main job on a standalone cluster with GPUs, by spark-submit, its code from the zip.

Two executors share the work of a job in `faults/test_cluster_faults.py`.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import pyarrow as pa
import pytest

from seer_model import __version__
from tests.support.manifest_rows import DS
from tests.support.standalone_cluster import (
    JOB,
    TIMEOUT_S,
    Job,
    assert_published,
    clean_environment,
    gpu_resources,
    run_job,
    worker,
)

pytestmark = [pytest.mark.spark, pytest.mark.slow]

DAY_BEFORE = "2026-11-24"
JOBS_AND_PROBE = """
import os, sys
from unittest import mock

import pandas as pd
from pyspark import TaskContext

import jobs.stages.worker
from jobs import categorize_listings
from jobs.command.session import start_session


def look(batches):
    for _ in batches:
        fallback, again = jobs.stages.worker.task_device(), jobs.stages.worker.task_device()
        with mock.patch.object(jobs.stages.worker, "cuda_available", return_value=True):
            cuda = jobs.stages.worker.task_device()
        given = TaskContext.get().resources()["gpu"].addresses
        row = [os.getpid(), *given, cuda.torch_name, fallback.torch_name, again.label]
        yield pd.DataFrame([[*row, jobs.stages.worker.__file__]])


day_before, *flags = sys.argv[1:]
of_both = dict(zip(flags[::2], flags[1::2]))
del of_both["--embeddings"]  # Else the second job would find its photos there.
first = [part for pair in (of_both | {"--ds": day_before}).items() for part in pair]
if code := categorize_listings.main(first) or categorize_listings.main(flags):
    sys.exit(code)
spark = start_session("probe")  # The jobs', and so their executor and workers.
columns = "pid long, given string, cuda string, fallback string, label string, code string"
rows = spark.range(0, 8, numPartitions=8).mapInPandas(look, columns).toPandas()
rows.to_json("seen.json", orient="records")
"""


def test_job_does_not_find_its_packages_without_the_zip(job: Job) -> None:
    done = subprocess.run(
        [sys.executable, JOB, "--help"],
        capture_output=True,
        text=True,
        cwd=job.folder,
        env=clean_environment(),
        timeout=TIMEOUT_S,
        check=False,
    )
    assert "No module named 'jobs'" in done.stderr


def test_tasks_use_the_gpus_that_spark_gave_them_and_share_the_model(
    master: str,
    package: Path,
    job: Job,
    read_categories: Callable[[Path], pa.Table],
    runtime: str,
    tmp_path: Path,
) -> None:
    resources = gpu_resources(tmp_path, 2)
    conf = {
        "spark.executor.cores": 2,
        "spark.executor.memory": "512m",
        "spark.executor.resource.gpu.amount": 2,
        "spark.task.resource.gpu.amount": 1,
        "spark.default.parallelism": 6,
        # The cluster's default file system must not matter to folders on this machine.
        "spark.hadoop.fs.defaultFS": "hdfs://127.0.0.1:1",
    }
    script = tmp_path / "jobs_and_probe.py"
    script.write_text(JOBS_AND_PROBE)
    manifest = tmp_path / "manifest"
    shutil.copytree(manifest / f"ds={DS}", manifest / f"ds={DAY_BEFORE}")
    with worker(master, tmp_path / "worker", 2, resources) as work:
        report = run_job(job._replace(script=(script, DAY_BEFORE)), package, master, conf)
        (log,) = (path.read_text() for path in work.glob("app-*/*/stderr"))
    assert_published(job, read_categories)
    fallback = "on the CPU for want of CUDA"
    assert report["devices"].keys() == {f"gpu {n}, {fallback} ({runtime})" for n in (0, 1)}
    assert sum(report["devices"].values()) == job.listings.total()
    for step in ("Fetching", "Unpacking an archive"):
        assert len(re.findall(rf"Executor: {step} \S+/model-", log)) == 1

    tasks = json.loads((job.folder / "seen.json").read_text())
    assert len(tasks) == 8
    assert {task["given"] for task in tasks} == {"0", "1"}
    for task in tasks:
        assert task["label"] == f"gpu {task['given']}, {fallback}"
        assert task["fallback"] == "cpu"
        assert task["cuda"] == f"cuda:{task['given']}"
        assert task["code"].endswith(f"{package.name}/jobs/stages/worker.py")
    # A worker process says it once. Spark may have ended one of the job's that was idle.
    processes = {task["pid"] for task in tasks}
    assert len(processes) <= log.count("torch finds no CUDA") < len(tasks)

    # Of the code in a zip only the version is known, and the page's template comes from it.
    client = mlflow.MlflowClient(str(job.arguments["--tracking-uri"]))
    tags = client.get_run(report["run_id"]).data.tags
    assert tags["package_version"] == __version__
    assert not [tag for tag in tags if tag.startswith("mlflow.source.git")]
    assert report["drift"]["compared_with"] == DAY_BEFORE
    page = client.download_artifacts(report["run_id"], "drift.html", str(tmp_path))
    assert DAY_BEFORE in Path(page).read_text(encoding="utf-8")
