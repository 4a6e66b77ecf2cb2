"""What a Spark user would write without this project: the documented iterator pandas UDF.

It follows https://spark.apache.org/docs/latest/api/python/tutorial/sql/arrow_pandas.html and
https://docs.databricks.com/en/machine-learning/reference-solutions/images-etl-inference.html:
binary files in, Pillow and torchvision, an eager float32 model on batches of 32, arrays of floats
out to Parquet. It is kinder than they are: the model stays in the worker from task to task, and
the files are not shuffled.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from pyspark.sql import SparkSession
from pyspark.sql.pandas.functions import pandas_udf
from torchvision import transforms

from jobs.command.session import local_uri
from seer_model.backbones.backbone import load_backbone
from seer_model.backbones.runtimes.base import Features
from seer_model.backbones.runtimes.choose import open_runtime

__all__ = ["MARK", "UdfPattern"]

MARK = "SEER_BENCHMARK_PATTERN"
"""Environment variable that tells the patterns' workers from the job's."""

_BATCH = 32
_TASKS_PER_CORE = 2

Embed = Callable[[Sequence[bytes]], Features]


class UdfPattern:
    """Runs the pattern on a Spark session.

    Args:
        spark: The session.
        backbone: Folder of the backbone.
        openvino: Compute with this package's OpenVINO runtime instead of eager torch.
    """

    def __init__(self, spark: SparkSession, backbone: Path, *, openvino: bool) -> None:
        self._spark = spark
        self._embed = _embedding(str(backbone), openvino=openvino)
        tasks = _TASKS_PER_CORE * spark.sparkContext.defaultParallelism
        # Even partitions: the cost that Spark adds per file would outweigh the files' sizes.
        self._settings = {
            "spark.sql.files.openCostInBytes": "0",
            "spark.sql.files.minPartitionNum": str(tasks),
        }

    def seconds(self, photos: Path, output: Path) -> float:
        """Embed the photos of a folder to Parquet; returns the seconds it took."""
        environment = self._spark.sparkContext.environment
        for name, value in self._settings.items():
            self._spark.conf.set(name, value)
        environment[MARK] = "1"
        try:
            started = perf_counter()
            files = self._spark.read.format("binaryFile").load(local_uri(photos))
            vectors = files.select("path", self._embed("content").alias("vector"))
            vectors.write.mode("overwrite").parquet(local_uri(output))
            return perf_counter() - started
        finally:
            del environment[MARK]
            for name in self._settings:
                self._spark.conf.unset(name)


def _embedding(backbone: str, *, openvino: bool) -> Any:
    load = _load_openvino if openvino else _load_eager

    @pandas_udf("array<float>")  # type: ignore[call-overload,untyped-decorator]
    def embed(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        model = load(backbone)
        for photos in batches:
            parts = [photos[start : start + _BATCH] for start in range(0, len(photos), _BATCH)]
            yield pd.Series([vector for part in parts for vector in model(list(part))])

    return embed


@lru_cache(maxsize=1)
def _load_eager(folder: str) -> Embed:
    backbone = load_backbone(Path(folder))
    trunk, expected = backbone.build(), backbone.preprocessing
    transform = transforms.Compose(
        [
            *_crop(expected.image_size),
            transforms.ToTensor(),
            transforms.Normalize(expected.mean, expected.std),
        ]
    )

    @torch.no_grad()
    def embed(photos: Sequence[bytes]) -> Features:
        batch = torch.stack([transform(_decode(photo)) for photo in photos])
        features: Features = trunk(batch).numpy()
        return features

    return embed


@lru_cache(maxsize=1)
def _load_openvino(folder: str) -> Embed:
    """The same decoding with our runtime, which normalises by itself and has its own batch size."""
    runtime = open_runtime(load_backbone(Path(folder)))
    transform = transforms.Compose(_crop(runtime.preprocessing.image_size))
    size = runtime.batch_size

    def embed(photos: Sequence[bytes]) -> Features:
        pixels = np.stack([np.asarray(transform(_decode(photo))) for photo in photos])
        filled = np.resize(pixels, (-(-len(pixels) // size) * size, *pixels.shape[1:]))
        waits = [runtime.start(filled[i : i + size]) for i in range(0, len(filled), size)]
        return np.concatenate([wait() for wait in waits])[: len(pixels)]

    return embed


def _crop(size: int) -> list[Callable[[Any], Any]]:
    return [transforms.Resize(size), transforms.CenterCrop(size)]


def _decode(photo: bytes) -> Image.Image:
    return Image.open(io.BytesIO(photo)).convert("RGB")
