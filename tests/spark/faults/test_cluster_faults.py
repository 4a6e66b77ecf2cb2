"""On a cluster: the driver and an executor are killed, then an executor; a task runs twice."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.manifest_rows import DS, ReadCategories
from tests.support.paths import ROOT
from tests.support.photo_server import ALLOWED, PhotoHandler, Victims, killing, photo_server
from tests.support.processes import command_of
from tests.support.spark_python import CONVERSIONS, DAEMON
from tests.support.standalone_cluster import JOB, TIMEOUT_S, Job, spark_submit, submit, worker

pytestmark = [pytest.mark.spark, pytest.mark.slow]

CONF = {
    "spark.executor.memory": "512m",
    "spark.python.daemon.module": DAEMON,
    "spark.executorEnv.PYTHONPATH": ROOT,
}
SPECULATION = {
    "spark.scheduler.minRegisteredResourcesRatio": "1.0",
    "spark.speculation": "true",
    "spark.speculation.interval": "100ms",
    "spark.speculation.multiplier": "1.1",
    "spark.speculation.quantile": "0.1",
    "spark.speculation.minTaskRuntime": "100ms",
}


def executor(client: psutil.Process) -> list[psutil.Process]:
    """The Java process that started a Python worker, and the worker, unless they are gone.

    The worker would ask for the photo once more before it sees that its executor is gone.
    """
    found = [
        parent
        for parent in client.parents()
        if "CoarseGrainedExecutorBackend" in " ".join(command_of(parent))
    ]
    return [*found, client] if found else []


def executor_and_driver(client: psutil.Process) -> list[psutil.Process]:
    """As `executor`, with the job's Python process, a child of these tests' spark-submit."""
    drivers = [
        process
        for process in psutil.Process().children(recursive=True)
        if str(JOB) in (command := command_of(process)) and "python" in command[0]
    ]
    return [*executor(client), *drivers]


def test_the_run_after_a_killed_one_survives_a_killed_executor_and_a_task_that_runs_twice(
    master: str,
    package: Path,
    job: Job,
    photos: dict[str, bytes],
    served_manifest: Callable[[str], Path],
    listings: list[str],
    read_categories: ReadCategories,
    tmp_path: Path,
) -> None:
    due: list[Victims] = [executor_and_driver]
    copies = threading.Barrier(2)

    def wait_for_the_other(handler: PhotoHandler, photo: bytes, count: int) -> None:
        copies.wait(TIMEOUT_S)
        handler.serve(photo)

    conf = CONF | {f"spark.executorEnv.{CONVERSIONS}": os.environ[CONVERSIONS]}
    with (
        worker(master, tmp_path / "worker 1", cores=1),
        # Spark starts no second copy of a task on the host of the first.
        worker(master, tmp_path / "worker 2", cores=1, host="127.0.0.2"),
        photo_server(photos, {"5.jpg": killing(due, wait_for_the_other)}) as (address, asked),
    ):
        manifest = served_manifest(address).as_uri()
        job = job._replace(arguments={**job.arguments, "--manifest": manifest})
        output = Path(str(job.arguments["--output"]))
        alone = conf | {"spark.cores.max": 1}
        killed = spark_submit(job.folder, package, master, alone, *job.command, *ALLOWED)
        # The exit code of spark-submit whose driver was killed.
        assert killed.returncode == 128 + signal.SIGKILL, killed.stderr
        assert not (output / f"ds={DS}").exists()
        # The next run loses an executor, goes on, and starts the slow task on both hosts.
        due.append(executor)
        both = conf | SPECULATION
        log = submit(job.folder, package, master, both, *job.command, *ALLOWED)
    assert due == []
    assert asked["5.jpg"] == 4, "by each run until the kill, and by both copies of the task"
    assert f"embedding photos: {len(photos)} photos in " in log
    table = read_categories(output)
    assert table["listing_id"].to_pylist() == listings
    assert set(table["images_used"].to_pylist()) == {2}
    assert set(table["images_rejected"].to_pylist()) == {0}
