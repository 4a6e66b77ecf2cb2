"""What runs on the executors: the model sent to them, loaded once a worker process, on its device.

The driver sends a model's folder as one archive; every executor fetches and unpacks it once.
"""

import atexit
import gc
import logging
import shutil
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from pyspark import SparkFiles, TaskContext
from pyspark.sql import SparkSession

from seer_model.backbone import load_backbone
from seer_model.bundle import Bundle, load_bundle
from seer_model.embedder import PhotoEmbedder
from seer_model.photos import PhotoLimits

__all__ = ["TaskDevice", "is_retry", "load_embedder", "load_scorer", "ship_model", "task_device"]

log = logging.getLogger(__name__)


class TaskDevice(NamedTuple):
    """Where a task computes: torch's name, and the words for the report."""

    torch_name: str
    label: str


def ship_model(spark: SparkSession, folder: Path, digest: str) -> str:
    """Send a folder to every executor, once a session.

    Args:
        spark: The session.
        folder: A bundle, or a folder with `backbone/` in it.
        digest: Of its content.

    Returns:
        The name under which `load_embedder` and `load_scorer` find it.
    """
    name = f"model-{digest[:16]}"
    context = spark.sparkContext
    if not any(archive.endswith(f"#{name}") for archive in context.listArchives):
        scratch = tempfile.mkdtemp(prefix="seer-")
        # Executors may come and fetch it as long as this process lives.
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        archive = Path(scratch) / f"{name}.zip"
        # Weights do not compress.
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, path.relative_to(folder))
        context.addArchive(f"{archive}#{name}")
    return name


@lru_cache(maxsize=2)
def load_scorer(name: str) -> Bundle:
    """The shipped bundle, read once a worker process."""
    bundle = load_bundle(Path(SparkFiles.get(name)))
    _set_aside()
    return bundle


@lru_cache(maxsize=8)  # one a GPU, should Spark hand the worker another with the next task
def load_embedder(name: str, device: str, limits: PhotoLimits) -> PhotoEmbedder:
    """The shipped backbone on a device, read once a worker process."""
    context = TaskContext.get()
    cores = context.cpus() if context else 1
    torch.set_num_threads(cores)
    backbone = load_backbone(Path(SparkFiles.get(name)) / "backbone")
    embedder = PhotoEmbedder.open(backbone, device, threads=cores, limits=limits)
    _set_aside()
    return embedder


def _set_aside() -> None:
    """Spare the garbage collector what stays.

    Spark's daemon makes it go through all objects after every task, which takes a quarter of a
    second for those of torch and the model.
    """
    gc.collect()
    gc.freeze()


def is_retry() -> bool:
    """Whether this task was tried before, or is being tried elsewhere.

    A photo may have ended the process that decoded it: what is retried is decoded with care.
    """
    context = TaskContext.get()
    return context is not None and context.attemptNumber() > 0


def task_device() -> TaskDevice:
    """The GPU that Spark gave this task; without one, this machine's first, or the CPU.

    With `spark.task.resource.gpu.amount` set Spark hands out addresses, and only the one given is
    used, so that tasks share no GPU unless the settings say so.
    """
    context = TaskContext.get()
    given = context.resources().get("gpu") if context else None
    available = torch.cuda.is_available()
    if given is None:
        return TaskDevice("cuda:0", "cuda:0") if available else TaskDevice("cpu", "cpu")
    address = given.addresses[0]
    if available:
        return TaskDevice(f"cuda:{address}", f"cuda:{address}")
    _warn_no_cuda()
    return TaskDevice("cpu", f"gpu {address}, on the CPU for want of CUDA")


@lru_cache(maxsize=1)
def _warn_no_cuda() -> None:
    log.warning("Spark gave this task a GPU, but torch finds no CUDA: computing on the CPU")
