import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from pyspark import TaskContext
from pyspark.sql import SparkSession

from jobs.stages.worker import load_embedder, load_scorer, ship_model
from seer_model.photos.limits import PhotoLimits

pytestmark = pytest.mark.spark

PARTITIONS = 12
ROWS_A_BATCH = 256
"""As jobs.command.session sets it."""


def test_model_is_loaded_once_a_process(spark: SparkSession, bundle_folder: Path) -> None:
    # Under a name that no test before this one has loaded.
    name = ship_model(spark, bundle_folder, "reuse-of-workers")

    def load(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for _ in batches:
            before = load_embedder.cache_info().misses + load_scorer.cache_info().misses
            load_embedder(name, "cpu", PhotoLimits())
            load_scorer(name)
            loads = load_embedder.cache_info().misses + load_scorer.cache_info().misses - before
            context = TaskContext.get()
            assert context is not None
            yield pd.DataFrame(
                {"pid": [os.getpid()], "task": [context.partitionId()], "loads": [loads]}
            )

    rows = (
        spark.range(PARTITIONS * ROWS_A_BATCH * 2, numPartitions=PARTITIONS)
        .mapInPandas(load, "pid long, task long, loads long")
        .collect()
    )
    batches = Counter(row["task"] for row in rows)
    assert dict(batches) == dict.fromkeys(range(PARTITIONS), 2)
    loads: dict[int, int] = defaultdict(int)
    for row in rows:
        loads[row["pid"]] += row["loads"]
    # Two run at once; workers left idle by other stages may take a turn, but each loads once.
    assert len(loads) < PARTITIONS / 2
    assert os.getpid() not in loads
    assert set(loads.values()) == {2}, "one embedder and one scorer a process"


def test_model_is_sent_once_a_session(spark: SparkSession, bundle_folder: Path) -> None:
    context = spark.sparkContext
    name = ship_model(spark, bundle_folder, "sent-once")
    archives = context.listArchives
    assert ship_model(spark, bundle_folder, "sent-once") == name
    assert context.listArchives == archives
    assert sum(archive.endswith(f"#{name}") for archive in archives) == 1
