"""The model on the executors: shipped once, loaded once a worker process, on the task's device.

The driver adds a model's folder to the session as one archive; every executor fetches and unpacks
it once.
"""

import gc
import logging
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from pyspark import SparkFiles, TaskContext
from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

from seer_model.backbones.backbone import load_backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.runtimes.choose import cuda_available
from seer_model.categorizer.bundle import Bundle, load_bundle
from seer_model.photos.limits import PhotoLimits
from seer_model.processes import scratch_folder

__all__ = ["TaskDevice", "is_retry", "load_embedder", "load_scorer", "ship_model", "task_device"]

log = logging.getLogger(__name__)

_SHIPPED: set[tuple[SparkSession, str]] = set()
"""Sessions of Spark Connect, which list no archives, and the models that they have."""


class TaskDevice(NamedTuple):
    """Where a task computes: torch's name for it, and a label for the report."""

    torch_name: str
    label: str


def ship_model(spark: SparkSession, folder: Path, digest: str) -> str:
    """Make a model available to every executor; sent once a session.

    Args:
        spark: The session.
        folder: A bundle, or a folder with `backbone/` in it.
        digest: Digest of its content.

    Returns:
        The name for `load_embedder` and `load_scorer`.
    """
    name = f"model-{digest[:16]}"
    if not _is_shipped(spark, name):
        # An executor may start and fetch it at any time in this process's life.
        archive = Path(tempfile.mkdtemp(dir=scratch_folder())) / f"{name}.zip"
        # Weights do not compress.
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, path.relative_to(folder))
        spark.addArtifacts(f"{archive}#{name}", archive=True)
        if is_remote():
            _SHIPPED.add((spark, name))
    return name


def _is_shipped(spark: SparkSession, name: str) -> bool:
    if is_remote():
        return (spark, name) in _SHIPPED
    return any(archive.endswith(f"#{name}") for archive in spark.sparkContext.listArchives)


@lru_cache(maxsize=2)
def load_scorer(name: str) -> Bundle:
    """Load a shipped bundle, once a worker process."""
    bundle = load_bundle(Path(SparkFiles.get(name)))
    _freeze_garbage_collector()
    return bundle


@lru_cache(maxsize=8)  # Spark may give a worker another GPU with every task.
def load_embedder(name: str, device: str, limits: PhotoLimits) -> PhotoEmbedder:
    """Load a shipped backbone on a device, once a worker process."""
    context = TaskContext.get()
    cores = context.cpus() if context else 1
    backbone = load_backbone(Path(SparkFiles.get(name)) / "backbone")
    if backbone.quantized and device != "cpu":
        log.warning("%s stays idle: the backbone is quantized, which CPUs alone compute", device)
        device = "cpu"
    embedder = PhotoEmbedder.open(backbone, device, threads=cores, limits=limits)
    _freeze_garbage_collector()
    return embedder


def _freeze_garbage_collector() -> None:
    """Exempt all objects alive now, libraries and the model, from garbage collection.

    Spark's daemon collects after every task, which takes a quarter of a second with torch.
    """
    gc.collect()
    gc.freeze()


def is_retry() -> bool:
    """Whether this is not the task's first attempt.

    A photo may have crashed the first attempt's process, so retries decode in a separate process.
    """
    context = TaskContext.get()
    return context is not None and context.attemptNumber() > 0


def task_device() -> TaskDevice:
    """The GPU that Spark assigned to this task; otherwise the machine's first GPU, or the CPU.

    Spark assigns GPUs if `spark.task.resource.gpu.amount` is set; tasks then share a GPU only if
    that setting says so.
    """
    context = TaskContext.get()
    given = context.resources().get("gpu") if context else None
    available = cuda_available()
    if given is None:
        return TaskDevice("cuda:0", "cuda:0") if available else TaskDevice("cpu", "cpu")
    address = given.addresses[0]
    if available:
        return TaskDevice(f"cuda:{address}", f"cuda:{address}")
    _warn_no_cuda()
    return TaskDevice("cpu", f"gpu {address}, on the CPU for want of CUDA")


@lru_cache(maxsize=1)
def _warn_no_cuda() -> None:
    log.warning("Spark assigned a GPU to this task, but torch finds no CUDA: using the CPU")
