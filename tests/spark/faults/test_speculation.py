"""Spark starts a slow task a second time elsewhere; its rows are published once."""

import threading
from pathlib import Path

import pytest

from tests.support.manifest_rows import ReadCategories, Rows, WriteManifest, row
from tests.support.photo_server import ALLOWED, PhotoHandler, photo_server
from tests.support.standalone_cluster import TIMEOUT_S, Job, submit, worker

pytestmark = [pytest.mark.spark, pytest.mark.slow]

CONF = {
    "spark.scheduler.minRegisteredResourcesRatio": "1.0",
    "spark.executor.memory": "512m",
    "spark.cores.max": 2,
    "spark.speculation": "true",
    "spark.speculation.interval": "100ms",
    "spark.speculation.multiplier": "1.1",
    "spark.speculation.quantile": "0.1",
    "spark.speculation.minTaskRuntime": "100ms",
}


def test_a_task_that_runs_twice_counts_once(
    master: str,
    package: Path,
    job: Job,
    rows: Rows,
    listings: list[str],
    write_manifest: WriteManifest,
    read_categories: ReadCategories,
    tmp_path: Path,
) -> None:
    asked_again = threading.Event()

    def wait_for_the_other(handler: PhotoHandler, photo: bytes, count: int) -> None:
        if count > 1:
            asked_again.set()
        assert asked_again.wait(TIMEOUT_S)
        handler.serve(photo)

    photos = {f"{i}.jpg": row["image_bytes"] for i, row in enumerate(rows)}
    with (
        # Spark starts no second copy on the host of the first.
        worker(master, tmp_path / "worker 1", cores=1),
        worker(master, tmp_path / "worker 2", cores=1, host="127.0.0.2"),
        photo_server(photos, {"5.jpg": wait_for_the_other}) as (address, asked),
    ):
        served = [
            row(r["listing_id"], r["image_index"], image_uri=f"{address}/{i}.jpg")
            for i, r in enumerate(rows)
        ]
        manifest = write_manifest(tmp_path / "served", served).as_uri()
        job = job._replace(arguments={**job.arguments, "--manifest": manifest})
        log = submit(job.folder, package, master, CONF, *job.command, *ALLOWED)
    assert f"embedding photos: {len(rows)} photos in " in log
    assert asked_again.is_set()
    assert asked["5.jpg"] == 2
    table = read_categories(Path(str(job.arguments["--output"])))
    assert table["listing_id"].to_pylist() == listings
    assert set(table["images_used"].to_pylist()) == {2}
