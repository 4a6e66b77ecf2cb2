"""The driver is killed at random between staging and after the commit, watched by PyIceberg."""

import json
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.object_store import ROOT, ObjectStore
from tests.support.manifest_rows import DS
from tests.support.processes import fork_script
from tests.support.spark_python import submit_args

pytestmark = [pytest.mark.spark, pytest.mark.lake, pytest.mark.slow]

KILLS = 20
ROWS = 200
TABLE = "killed.categories"
PUBLISHES = f"""
import itertools, os, signal, sys, threading, time, uuid
from pathlib import Path
from jobs.command.folders import open_folder
from jobs.command.locations import Table
from jobs.command.session import start_session
from jobs.stages.publish.opening import CATEGORIES_TABLE, open_output
from pyspark.sql import functions as F
from schemas.categories import CATEGORIES

name, seconds, scratch = sys.argv[1], float(sys.argv[2]), sys.argv[3]
spark = start_session("publishes")
output = open_output(spark, Table("table:lake.{TABLE}"), CATEGORIES_TABLE)
values = {{
    "candidates": F.array().cast("array<struct<category_id: string, score: float>>"),
    "images_used": F.lit(0),
    "images_rejected": F.lit(1),
    "categorized_at": F.current_timestamp(),
}}

def publish(run):
    rows = spark.range({ROWS}, numPartitions=2).select(
        F.col("id").cast("string").alias("listing_id"),
        *[
            values.get(f.name, F.lit(run)).alias(f.name)
            for f in CATEGORIES
            if not f.nullable and f.name != "listing_id"
        ],
    )
    with output.hold({DS!r}, run) as partition:
        partition.stage(rows, open_folder(spark, scratch) / uuid.uuid4().hex)
        partition.publish({{"seer.run-id": run}})
    print(run, flush=True)

def die():
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)

publish(f"{{name}} first")
if seconds:
    threading.Thread(target=die, daemon=True).start()
    for number in itertools.count():
        publish(f"{{name}} {{number}}")
"""


@contextmanager
def polled(store: ObjectStore) -> Iterator[list[dict[str, int]]]:
    """Read the table throughout the block; what was read is there once it has ended."""
    asked = {"settings": store.pyiceberg_settings(), "table": TABLE}
    reads: list[dict[str, int]] = []
    with subprocess.Popen(
        [
            ROOT / ".venv-lake" / "bin" / "python",
            "-m",
            "tests.support.lake_poller",
            json.dumps(asked),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as poller:
        try:
            yield reads
        finally:
            output, _ = poller.communicate("over")
        reads += map(json.loads, output.splitlines())
        assert poller.returncode == 0


def test_a_reader_sees_one_run_whole_whenever_the_driver_is_killed(
    store: ObjectStore, tmp_path: Path
) -> None:
    settings = submit_args(**store.spark_settings())
    moments = random.Random(15)

    def publish(name: str, seconds: float) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / name
        folder.mkdir()
        arguments = (name, seconds, store.scratch)
        return fork_script(folder, PUBLISHES, *arguments, env={"PYSPARK_SUBMIT_ARGS": settings})

    assert publish("before", 0).returncode == 0
    with polled(store) as reads:
        for number in range(KILLS):
            killed = publish(f"run{number}", moments.uniform(0.05, 3))
            assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert publish("after", 0).returncode == 0
    assert all(list(read.values()) == [ROWS] for read in reads), reads
    seen = [run for read in reads for run in read]
    assert (seen[0], seen[-1]) == ("before first", "after first")
    assert len(set(seen)) > KILLS // 2
