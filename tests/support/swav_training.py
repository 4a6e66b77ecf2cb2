"""Tiny trainings, in one process or several; some are killed."""

import io
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import distributed
from torch.multiprocessing.spawn import start_processes

from schemas.errors import SettingsError
from schemas.manifest import MANIFEST
from seer_model.backbones.backbone import Backbone
from seer_model.training.pretraining.checkpoint import Checkpoint, load_latest
from seer_model.training.pretraining.photo_stream import PhotoStream
from seer_model.training.pretraining.recipe import Recipe
from seer_model.training.pretraining.trainer import EpochReport, Trainer

PHOTOS = 32
STEPS = 8
"""Of the tiny recipe: four an epoch."""

# A collapse raises no alarm during the warm-up, and so little training may well look like one.
TINY = Recipe(
    architecture="regnety_002",
    epochs=2,
    batch_size=8,
    photo_size=40,
    large_size=32,
    small_size=16,
    small_crops=1,
    prototypes=12,
    projection=(32, 16),
    frozen_prototypes_epochs=0.5,
    learning_rate=1e-3,
    warmup_epochs=2,
    bf16=False,
)


def changed(recipe: Recipe, **changes: Any) -> Recipe:
    """A copy with other settings, validated anew."""
    return Recipe(**recipe.model_dump() | changes)


QUEUE: dict[str, Any] = {"queue_length": 16, "queue_from_epoch": 0}
LARC: dict[str, Any] = {"optimiser": "larc", "learning_rate": 0.5, "weight_decay": 1e-6}


def photo(number: int) -> bytes:
    """A few random patches of colour."""
    rng = np.random.default_rng(number)
    buffer = io.BytesIO()
    patches = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    patches.resize((50, 40), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def write_manifest(
    folder: Path, *, bad: Sequence[int] = (), make: Callable[[int], bytes] = photo
) -> Path:
    rows = [
        {
            "listing_id": str(n),
            "image_index": 0,
            "image_bytes": b"no photo" if n in bad else make(n),
        }
        for n in range(PHOTOS)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, MANIFEST), folder / "part-0.parquet")
    return folder


def make_trainer(
    recipe: Recipe,
    manifest: Path,
    checkpoints: Path,
    *,
    checkpoint_steps: int = 2,
    stream: type[PhotoStream] = PhotoStream,
    start: Backbone | None = None,
    teacher: Backbone | None = None,
) -> Trainer:
    together = distributed.is_initialized()
    count = distributed.get_world_size() if together else 1
    photos = stream(
        manifest,
        photo_size=recipe.photo_size,
        batch_size=recipe.batch_size // count,
        seed=recipe.seed,
        rank=distributed.get_rank() if together else 0,
        world_size=count,
    )
    return Trainer(
        recipe,
        photos,
        checkpoints,
        checkpoint_steps=checkpoint_steps,
        start=start,
        teacher=teacher,
    )


def train(
    recipe: Recipe, manifest: Path, checkpoints: Path, *, resume: bool = False, **options: Any
) -> list[EpochReport]:
    """Train to the end; the reports."""
    trainer = make_trainer(recipe, manifest, checkpoints, **options)
    if resume:
        assert trainer.resume()
    reports: list[EpochReport] = []
    trainer.run(reports.append)
    return reports


def newest(checkpoints: Path) -> Checkpoint:
    checkpoint = load_latest(checkpoints)
    assert checkpoint is not None
    return checkpoint


def assert_equal_to_the_bit(checkpoints: Path, expected: Path) -> None:
    """The end of two trainings: weights, statistics, optimiser, queue."""
    one, other = newest(checkpoints), newest(expected)
    assert (one.step, one.state) == (other.step, other.state)
    assert one.tensors.keys() == other.tensors.keys()
    different = [name for name in one.tensors if not one.tensors[name].equal(other.tensors[name])]
    assert different == []


class Interrupted(BaseException):
    """Stands for the end of a process, where killing it would take the test along."""


class InterruptedStream(PhotoStream):
    """Breaks off in the middle of the second epoch, after step 7."""

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[torch.Tensor]:
        for step, batch in enumerate(super().batches(epoch, start_step), start_step):
            if (epoch, step) == (1, 3):
                self.interrupt()
            yield batch

    def interrupt(self) -> None:
        raise Interrupted


class EndlessStream(InterruptedStream):
    def interrupt(self) -> None:
        time.sleep(600)


# Several processes.


def run_processes(count: int, work: Callable[..., None], folder: Path, *args: Any) -> None:
    """Call work(rank, folder, ...) in processes that train together; at most five minutes."""
    # The server has imported torch and this module once, for all processes of this test run.
    multiprocessing.set_forkserver_preload(["tests.support.swav_training"])
    context = start_processes(
        _process, (count, work, folder, args), count, join=False, start_method="forkserver"
    )
    assert context is not None
    deadline = time.monotonic() + 300
    while not context.join(timeout=5):
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            raise TimeoutError(f"{work.__name__} took over five minutes")


def _process(
    rank: int, count: int, work: Callable[..., None], folder: Path, args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        store=distributed.FileStore(str(folder / "store"), count),
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=120),
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            work(rank, folder, *args)
    finally:
        distributed.destroy_process_group()
    # Threads of gloo may still let go of tensors, which takes the interpreter; where it is being
    # taken down, that aborts the process (pytorch/pytorch#179291).
    sys.stdout.flush()
    os._exit(0)


# Trainings that die, each in a process of its own.


def run_process(work: Callable[..., Any], *args: Any) -> tuple[str, int]:
    """Call work(*args) in a process of its own; returns what it printed, and its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.swav_training"])
    with tempfile.NamedTemporaryFile("r") as output:
        process = context.Process(target=_print_to, args=(output.name, work, args))
        process.start()
        process.join(300)
        if process.exitcode is None:
            process.kill()
        process.join()
        assert process.exitcode is not None
        return output.read(), process.exitcode


def _print_to(output: str, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    work(*args)


def fork(work: Callable[[], Any]) -> int:
    process = os.fork()
    if process:
        return process
    try:
        work()
        os._exit(0)
    except SettingsError as error:
        os.write(1, f"{error}\n".encode())
        os._exit(error.exit_code)
    except BaseException as error:
        os.write(1, f"{error!r}\n".encode())
        os._exit(99)


def kill_in_second_epoch(recipe: Recipe, manifest: Path, checkpoints: Path) -> None:
    process = fork(lambda: train(recipe, manifest, checkpoints, stream=EndlessStream))
    deadline = time.monotonic() + 120
    while not (checkpoints / "step-00000006").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status), f"ended by itself: {status}"


def fill_disk_after_first_epoch(recipe: Recipe, manifest: Path, checkpoints: Path) -> None:
    def work() -> None:
        trainer = make_trainer(recipe, manifest, checkpoints)
        trainer.run(lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))

    os.waitpid(fork(work), 0)


def die(folder: Path) -> None:
    """Leave behind what a killed training, and one that ran out of disk, had saved."""
    kill_in_second_epoch(TINY, folder / "manifest", folder / "killed")
    fill_disk_after_first_epoch(TINY, folder / "manifest", folder / "full disk")
