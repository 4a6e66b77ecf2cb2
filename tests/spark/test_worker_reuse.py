import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark import TaskContext
from pyspark.sql import SparkSession

from jobs.stages.worker import load_embedder, load_scorer, ship_model
from seer_model.backbones.backbone import load_backbone, save_backbone
from seer_model.backbones.runtimes.quantization import quantize
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


def test_a_quantized_backbone_leaves_a_gpu_idle(
    spark: SparkSession, bundle_folder: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(bundle_folder / "backbone")
    size = backbone.preprocessing.image_size
    photos = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), np.uint8)
    (tmp_path / "network").mkdir()
    quantized = quantize(backbone, photos, tmp_path / "network")
    save_backbone(quantized, tmp_path / "model" / "backbone")
    name = ship_model(spark, tmp_path / "model", quantized.digest)

    def load(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for _ in batches:
            embedder = load_embedder(name, "cuda:0", PhotoLimits())
            yield pd.DataFrame({"runtime": [embedder.runtime.name]})

    (row,) = spark.range(1).mapInPandas(load, "runtime string").collect()
    assert row["runtime"].startswith("openvino int8")


def test_model_is_sent_once_a_session(spark: SparkSession, bundle_folder: Path) -> None:
    context = spark.sparkContext
    name = ship_model(spark, bundle_folder, "sent-once")
    archives = context.listArchives
    assert ship_model(spark, bundle_folder, "sent-once") == name
    assert context.listArchives == archives
    assert sum(archive.endswith(f"#{name}") for archive in archives) == 1
