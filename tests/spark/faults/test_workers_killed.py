"""Python workers are killed while they read a photo; for executors see `test_cluster_faults`."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.spark.faults.conftest import Published
from tests.support.manifest_rows import BY_RUN, DS, Categorize, ReadCategories
from tests.support.photo_server import ALLOWED, killing, photo_server
from tests.support.watching import Watch

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def worker_itself(client: psutil.Process) -> list[psutil.Process]:
    return [client]


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
