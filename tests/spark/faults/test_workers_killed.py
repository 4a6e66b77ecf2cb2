"""Workers, executors and drivers are killed while they read a photo."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.spark.faults.conftest import Published
from tests.support.manifest_rows import (
    BY_RUN,
    DS,
    Categorize,
    ReadCategories,
    Rows,
    WriteManifest,
    row,
)
from tests.support.photo_server import ALLOWED, PhotoHandler, photo_server
from tests.support.processes import command_of
from tests.support.standalone_cluster import JOB, Job, spark_submit, submit, worker
from tests.support.watching import Watch

pytestmark = [pytest.mark.spark, pytest.mark.slow]


Victims = Callable[[psutil.Process], list[psutil.Process]]
"""Finds processes to kill, given the one that asks for a photo."""


def worker_itself(client: psutil.Process) -> list[psutil.Process]:
    return [client]


def executor_of(client: psutil.Process) -> list[psutil.Process]:
    """The Java process that started a Python worker, unless it is gone."""
    return [
        parent
        for parent in client.parents()
        if "CoarseGrainedExecutorBackend" in " ".join(command_of(parent))
    ]


def executor_and_driver(client: psutil.Process) -> list[psutil.Process]:
    """As `executor_of`, with the job's Python process, a child of these tests' spark-submit."""
    drivers = [
        process
        for process in psutil.Process().children(recursive=True)
        if str(JOB) in (command := command_of(process)) and "python" in command[0]
    ]
    return [*executor_of(client), *drivers]


def killing(due: list[Victims]) -> Any:
    """Kill what is due next, and never answer; serve the photo once nothing is due."""

    def behave(handler: PhotoHandler, photo: bytes, count: int) -> None:
        if not due:
            handler.serve(photo)
        elif (client := handler.client()) is not None and (victims := due[0](client)):
            del due[0]
            for process in victims:
                process.kill()

    return behave


@pytest.fixture
def photos(rows: Rows) -> dict[str, bytes]:
    return {f"{i}.jpg": row["image_bytes"] for i, row in enumerate(rows)}


@pytest.fixture
def served_manifest(
    rows: Rows, write_manifest: WriteManifest, tmp_path: Path
) -> Callable[[str], Path]:
    """The same listings, their photos at an address."""

    def write(address: str) -> Path:
        return write_manifest(
            tmp_path / "served",
            [
                row(r["listing_id"], r["image_index"], image_uri=f"{address}/{i}.jpg")
                for i, r in enumerate(rows)
            ],
        )

    return write


def test_a_killed_python_worker_is_replaced(
    photos: dict[str, bytes],
    served_manifest: Callable[[str], Path],
    published: Published,
    listings: list[str],
    categorize: Categorize,
    read_categories: ReadCategories,
) -> None:
    output = published.output
    behaviours = {name: killing([worker_itself]) for name in ("5.jpg", "17.jpg")}
    with (
        Watch.over(output / f"ds={DS}", listings) as watch,
        photo_server(photos, behaviours) as (address, asked),
    ):
        second = categorize(served_manifest(address), output, *ALLOWED)
    assert min(asked["5.jpg"], asked["17.jpg"]) > 1
    assert second["photos_rejected"] == 0
    assert watch.runs == [published.run, second["run_id"]]
    assert read_categories(output).drop_columns(BY_RUN).equals(published.table)


@pytest.fixture
def cluster_job(job: Job, served_manifest: Callable[[str], Path]) -> Callable[[str], Job]:
    def make(address: str) -> Job:
        manifest = served_manifest(address).as_uri()
        return job._replace(arguments={**job.arguments, "--manifest": manifest})

    return make


CONF = {"spark.executor.memory": "512m", "spark.cores.max": 1}


def test_driver_and_executor_killed_together_and_then_an_executor(
    master: str,
    package: Path,
    cluster_job: Callable[[str], Job],
    photos: dict[str, bytes],
    listings: list[str],
    read_categories: ReadCategories,
    tmp_path: Path,
) -> None:
    due: list[Victims] = [executor_and_driver]
    with (
        worker(master, tmp_path / "worker", cores=1),
        photo_server(photos, {"5.jpg": killing(due)}) as (address, _),
    ):
        job = cluster_job(address)
        output = Path(str(job.arguments["--output"]))
        killed = spark_submit(job.folder, package, master, CONF, *job.command, *ALLOWED)
        # The exit code of spark-submit whose driver was killed.
        assert killed.returncode == 128 + signal.SIGKILL, killed.stderr
        assert not (output / f"ds={DS}").exists()
        # The killed driver has left the model's archive.
        shutil.rmtree(job.folder / "scratch")
        # The next run loses its executor, gets another, and goes on.
        due.append(executor_of)
        submit(job.folder, package, master, CONF, *job.command, *ALLOWED)
    assert due == []
    table = read_categories(output)
    assert table["listing_id"].to_pylist() == listings
    assert set(table["images_rejected"].to_pylist()) == {0}
