"""The main job on a cluster: spark-submit, a real master, real workers, code from the zip."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import pyarrow as pa
import pyspark
import pytest

pytestmark = [pytest.mark.spark, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
JOB = ROOT / "jobs" / "categorize_listings.py"
BIN = Path(pyspark.__file__).parent / "bin"
DS = "2026-11-25"
TIMEOUT_S = 180
"""Of a process, or of what one waits for."""

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


# ---------------------------------------------------------------- a cluster


def clean_environment() -> dict[str, str]:
    """Of a person's shell: nothing that this process, pytest or Spark has put there."""
    kept = {"PATH", "HOME", "JAVA_HOME", "LANG", "TMPDIR", "PYTHONPYCACHEPREFIX"}
    return {name: value for name, value in os.environ.items() if name in kept} | {
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "512m",
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def wait_for(pattern: str, process: subprocess.Popen[bytes], log: Path) -> str:
    """The first group of a pattern, once it is in the log of a process."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := re.search(pattern, log.read_text(encoding="utf-8"))):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.1)
    return found[1]


@contextmanager
def daemon(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """One of Spark's own processes, which is gone when the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BIN / "spark-class", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=clean_environment(),
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("master") / "log"
    command = ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1"]
    with daemon(log, *command, "--port", "0", "--webui-port", "0") as process:
        yield wait_for(r"Starting Spark master at (spark://\S+)", process, log)


@contextmanager
def worker(master: str, folder: Path, cores: int, resources: Path | None = None) -> Iterator[Path]:
    """A worker on this machine; yields where its executors work."""
    folder.mkdir()
    work, log = folder / "work", folder / "log"
    command = ["org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--port", "0"]
    command += ["--webui-port", "0", "--cores", str(cores), "--memory", "1g"]
    command += ["--work-dir", str(work)]
    if resources is not None:
        command += ["--properties-file", str(resources)]
    with daemon(log, *command, master) as process:
        wait_for(r"(Successfully registered with master)", process, log)
        yield work


# ---------------------------------------------------------------- a job for it


class Job(NamedTuple):
    """What is submitted, and the folder it runs in, which holds no code."""

    folder: Path
    arguments: Mapping[str, object]
    listings: Counter[str]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dist") / "seer-categories.zip"
    script = ROOT / "scripts" / "package_zip.py"
    subprocess.run(
        [sys.executable, script, "--root", ROOT, "--output", path], check=True, timeout=TIMEOUT_S
    )
    return path


@pytest.fixture
def job(
    write_manifest: Callable[..., Path],
    draw_photo: Callable[..., bytes],
    broken_photos: dict[str, bytes],
    bundle_folder: Path,
    tracking_uri: str,
    tmp_path: Path,
) -> Job:
    photos = [draw_photo("warm/red", i) for i in range(40)] + list(broken_photos.values())
    file = tmp_path / "photo.jpg"
    file.write_bytes(photos[0])
    rows = [
        {"listing_id": f"listing {i % 30}", "image_index": i // 30, "image_bytes": photo}
        for i, photo in enumerate(photos)
    ]
    rows.append({"listing_id": "a file", "image_index": 0, "image_uri": str(file)})
    rows.append({"listing_id": "no file", "image_index": 0, "image_uri": str(tmp_path / "none")})
    folder = tmp_path / "shell"
    folder.mkdir()
    arguments = {
        "--manifest": write_manifest(tmp_path / "manifest", rows).as_uri(),
        "--ds": DS,
        "--model": bundle_folder,
        "--output": tmp_path / "categories",
        "--embeddings": tmp_path / "store",
        "--tracking-uri": tracking_uri,
        "--report": tmp_path / "report.json",
    }
    return Job(folder, arguments, Counter(row["listing_id"] for row in rows))


def submit(
    folder: Path, package: Path, master: str, conf: Mapping[str, object], *command: object
) -> None:
    """Run spark-submit from a folder, until the job is done."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    settings = [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]
    done = subprocess.run(
        [BIN / "spark-submit", "--master", master, "--py-files", package, *settings, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=folder,
        env=clean_environment() | {"TMPDIR": str(scratch)},
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(scratch.glob("seer-*")), "the model's archive was left behind"


def run_job(
    job: Job, package: Path, master: str, conf: Mapping[str, object], *flags: object
) -> dict[str, Any]:
    """Submit the job; gives its report, once it counted every listing."""
    arguments = [part for pair in job.arguments.items() for part in pair]
    submit(job.folder, package, master, conf, JOB, *arguments, *flags)
    report: dict[str, Any] = json.loads(Path(str(job.arguments["--report"])).read_text())
    assert report["listings"] == len(job.listings)
    assert report["photos"] == report["photos_embedded"] == job.listings.total()
    assert report["reject_reasons"]["not_found"] == 1
    return report


def assert_published(job: Job, read_categories: Callable[[Path], pa.Table]) -> None:
    table = read_categories(Path(str(job.arguments["--output"])))
    assert table["listing_id"].to_pylist() == sorted(job.listings)
    used, rejected = table["images_used"].to_pylist(), table["images_rejected"].to_pylist()
    photos = [sum(both) for both in zip(used, rejected, strict=True)]
    assert photos == [job.listings[name] for name in sorted(job.listings)]


# ---------------------------------------------------------------- the tests


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
    assert report["devices"] == {"cpu": job.listings.total()}
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
        and "ArrowEvalPython" in json.dumps(event["Stage Info"]["RDD Info"])
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


def test_every_task_uses_the_gpu_that_spark_gave_it(
    master: str,
    package: Path,
    job: Job,
    read_categories: Callable[[Path], pa.Table],
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
    assert report["devices"].keys() == {f"gpu {n}, {fallback}" for n in (0, 1)}
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
