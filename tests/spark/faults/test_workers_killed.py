"""Processes that compute are killed while they read a photo; the job goes on without them."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.spark.faults.photo_server import ALLOWED, PhotoHandler, photo_server
from tests.spark.faults.processes import command_of
from tests.spark.faults.watching import Watch
from tests.spark.manifest_rows import (
    BY_RUN,
    DS,
    Categorize,
    ReadCategories,
    Rows,
    WriteManifest,
    row,
)
from tests.spark.standalone_cluster import JOB, Job, spark_submit, submit, worker

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def executor_of(process: psutil.Process) -> psutil.Process:
    """The Java process that started a Python worker."""
    (found,) = [
        parent
        for parent in process.parents()
        if "CoarseGrainedExecutorBackend" in " ".join(command_of(parent))
    ]
    return found


def killing(*victims: Callable[[psutil.Process], psutil.Process]) -> Any:
    """Kill, with the first request, what the client gives, and never answer it."""

    def behave(handler: PhotoHandler, photo: bytes, count: int) -> None:
        if count > 1:
            handler.serve(photo)
            return
        if (client := handler.client()) is not None:
            for process in [victim(client) for victim in victims]:
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
    manifest: Path,
    served_manifest: Callable[[str], Path],
    output: Path,
    listings: list[str],
    categorize: Categorize,
    read_categories: ReadCategories,
) -> None:
    first = categorize(manifest, output)["run_id"]
    expected = read_categories(output).drop_columns(BY_RUN)
    behaviours = {"5.jpg": killing(lambda client: client), "17.jpg": killing(lambda client: client)}
    with (
        Watch.over(output / f"ds={DS}", listings) as watch,
        photo_server(photos, behaviours) as (address, asked),
    ):
        second = categorize(served_manifest(address), output, *ALLOWED)
    assert min(asked["5.jpg"], asked["17.jpg"]) > 1
    assert second["photos_rejected"] == 0
    assert watch.runs == [first, second["run_id"]]
    assert read_categories(output).drop_columns(BY_RUN).equals(expected)


@pytest.fixture
def cluster_job(job: Job, served_manifest: Callable[[str], Path]) -> Callable[[str], Job]:
    def make(address: str) -> Job:
        manifest = served_manifest(address).as_uri()
        return job._replace(arguments={**job.arguments, "--manifest": manifest})

    return make


CONF = {"spark.executor.memory": "512m", "spark.cores.max": 1}


def test_a_killed_executor_is_replaced(
    master: str,
    package: Path,
    cluster_job: Callable[[str], Job],
    photos: dict[str, bytes],
    listings: list[str],
    read_categories: ReadCategories,
    tmp_path: Path,
) -> None:
    with (
        worker(master, tmp_path / "worker", cores=1),
        photo_server(photos, {"5.jpg": killing(executor_of)}) as (address, asked),
    ):
        job = cluster_job(address)
        submit(job.folder, package, master, CONF, *job.command, *ALLOWED)
    assert asked["5.jpg"] > 1
    table = read_categories(Path(str(job.arguments["--output"])))
    assert table["listing_id"].to_pylist() == listings
    assert set(table["images_rejected"].to_pylist()) == {0}


def test_driver_and_executor_killed_together(
    master: str,
    package: Path,
    cluster_job: Callable[[str], Job],
    photos: dict[str, bytes],
    listings: list[str],
    read_categories: ReadCategories,
    tmp_path: Path,
) -> None:
    def driver(client: psutil.Process) -> psutil.Process:
        (found,) = [
            process
            for process in psutil.Process().children(recursive=True)
            if str(JOB) in (command := command_of(process)) and "python" in command[0]
        ]
        return found

    with (
        worker(master, tmp_path / "worker", cores=1),
        photo_server(photos, {"5.jpg": killing(executor_of, driver)}) as (address, _),
    ):
        job = cluster_job(address)
        output = Path(str(job.arguments["--output"]))
        killed = spark_submit(job.folder, package, master, CONF, *job.command, *ALLOWED)
        # What spark-submit says of a driver that was killed.
        assert killed.returncode == 128 + signal.SIGKILL, killed.stderr
        assert not (output / f"ds={DS}").exists()
        # The killed driver has left the model's archive.
        shutil.rmtree(job.folder / "scratch")
        submit(job.folder, package, master, CONF, *job.command, *ALLOWED)
    assert read_categories(output)["listing_id"].to_pylist() == listings
