"""A standalone Spark cluster on this machine, and the main job submitted to it."""

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
from typing import Any, NamedTuple

import pyarrow as pa

from tests.support.paths import ROOT
from tests.support.spark_java import BIN

JOB = ROOT / "jobs" / "categorize_listings.py"
TIMEOUT_S = 600
"""Upper bound for a process, or for a line in its log."""


# ---------------------------------------------------------------- a cluster


def clean_environment() -> dict[str, str]:
    """Return a shell's variables, without those of this process, of pytest and of Spark."""
    kept = {"PATH", "HOME", "JAVA_HOME", "LANG", "TMPDIR", "PYTHONPYCACHEPREFIX"}
    kept |= {"SPARK_SUBMIT_OPTS", "SPARK_DAEMON_JAVA_OPTS"}
    return {name: value for name, value in os.environ.items() if name in kept} | {
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "512m",
        "PYSPARK_PYTHON": sys.executable,
        "CUDA_VISIBLE_DEVICES": "",
    }


def wait_for(pattern: str, process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait for a pattern in the log of a process; return its first group."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := re.search(pattern, log.read_text(encoding="utf-8"))):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.1)
    return found[1]


@contextmanager
def daemon(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of Spark's daemons until the block ends."""
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


@contextmanager
def worker(
    master: str,
    folder: Path,
    cores: int,
    resources: Path | None = None,
    host: str = "127.0.0.1",
) -> Iterator[Path]:
    """Run a worker until the block ends; yields the working directory of its executors."""
    folder.mkdir()
    work, log = folder / "work", folder / "log"
    command = ["org.apache.spark.deploy.worker.Worker", "--host", host, "--port", "0"]
    command += ["--webui-port", "0", "--cores", str(cores), "--memory", "1g"]
    command += ["--work-dir", str(work)]
    if resources is not None:
        command += ["--properties-file", str(resources)]
    with daemon(log, *command, master) as process:
        wait_for(r"(Successfully registered with master)", process, log)
        yield work


def gpu_resources(folder: Path, count: int) -> Path:
    """A worker's settings by which it believes in GPUs: with a script that discovers them."""
    addresses = json.dumps([str(number) for number in range(count)])
    discovery = folder / "discover.sh"
    discovery.write_text(f'#!/bin/sh\necho \'{{"name": "gpu", "addresses": {addresses}}}\'\n')
    discovery.chmod(0o755)
    resources = folder / "worker.conf"
    resources.write_text(
        f"spark.worker.resource.gpu.amount {count}\n"
        f"spark.worker.resource.gpu.discoveryScript {discovery}\n"
    )
    return resources


# ---------------------------------------------------------------- a job for it


class Job(NamedTuple):
    """A job's arguments, and the folder it is submitted from, which holds no code.

    Before the arguments come the job's script, or one that does more, and what else it takes.
    """

    folder: Path
    arguments: Mapping[str, object]
    listings: Counter[str]
    script: tuple[object, ...] = (JOB,)

    @property
    def command(self) -> list[object]:
        return [*self.script, *(part for pair in self.arguments.items() for part in pair)]


def spark_submit(
    folder: Path, package: Path, master: str, conf: Mapping[str, object], *command: object
) -> subprocess.CompletedProcess[str]:
    """Run spark-submit from a folder, whatever its exit code."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    settings = [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]
    return subprocess.run(
        [BIN / "spark-submit", "--master", master, "--py-files", package, *settings, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=folder,
        env=clean_environment() | {"TMPDIR": str(scratch)},
        timeout=TIMEOUT_S,
        check=False,
    )


def submit(
    folder: Path, package: Path, master: str, conf: Mapping[str, object], *command: object
) -> str:
    """Run spark-submit from a folder; it must succeed. Returns what the job has printed."""
    done = spark_submit(folder, package, master, conf, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    left = list((folder / "scratch").glob("seer-*"))
    assert not left, "the model's archive was left behind"
    return done.stdout  # Spark sends Python's standard error there, too.


def run_job(
    job: Job, package: Path, master: str, conf: Mapping[str, object], *flags: object
) -> dict[str, Any]:
    """Submit the job and check that it counted every listing; return its report."""
    submit(job.folder, package, master, conf, *job.command, *flags)
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
