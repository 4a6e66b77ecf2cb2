"""The main job on a cluster: spark-submit, a real master, real workers, code from the zip."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tests.spark.standalone_cluster import (
    JOB,
    TIMEOUT_S,
    Job,
    assert_published,
    clean_environment,
    run_job,
    worker,
)

pytestmark = [pytest.mark.spark, pytest.mark.slow]


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


def test_two_executors_share_the_work_and_fetch_the_model_once(
    master: str,
    package: Path,
    job: Job,
    read_categories: Callable[[Path], pa.Table],
    runtime: str,
    tmp_path: Path,
) -> None:
    events = tmp_path / "events"
    events.mkdir()
    conf = {
        # Standalone masters start a job before its executors are there, unless told to wait.
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.executor.memory": "512m",
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": events.as_uri(),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }
    with (
        worker(master, tmp_path / "worker 1", cores=1) as one,
        worker(master, tmp_path / "worker 2", cores=1) as other,
    ):
        report = run_job(job, package, master, conf | {"spark.cores.max": 2})
        logs = [log.read_text() for work in (one, other) for log in work.glob("app-*/*/stderr")]
    assert_published(job, read_categories)
    assert report["devices"] == {f"cpu ({runtime})": job.listings.total()}
    (log,) = events.iterdir()
    assert embedding_executors(log) == {"0", "1"}
    assert len(logs) == 2
    for text in logs:
        for step in ("Fetching", "Unpacking an archive"):
            assert len(re.findall(rf"Executor: {step} \S+/model-", text)) == 1


def embedding_executors(log: Path) -> set[str]:
    """The executors that ended a task of a stage that runs the embedding function."""
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    stages = {
        event["Stage Info"]["Stage ID"]
        for event in events
        if event["Event"] == "SparkListenerStageCompleted"
        and "MapInArrow" in json.dumps(event["Stage Info"]["RDD Info"])
    }
    assert stages
    return {
        event["Task Info"]["Executor ID"]
        for event in events
        if event["Event"] == "SparkListenerTaskEnd" and event["Stage ID"] in stages
    }


def test_local_master_with_another_default_file_system(
    package: Path, job: Job, read_categories: Callable[[Path], pa.Table]
) -> None:
    # Where a cluster keeps its files by default must not matter to folders on this machine.
    conf = {"spark.hadoop.fs.defaultFS": "hdfs://127.0.0.1:1"}
    run_job(job, package, "local[2]", conf)
    assert_published(job, read_categories)
