"""Pretrain in several processes on this machine, through Spark's TorchDistributor."""

import json
import logging
import os
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from datetime import timedelta
from io import TextIOBase
from pathlib import Path

import torch
from pyspark.ml.torch.distributor import TorchDistributor
from torch import distributed

from jobs.command.session import start_session
from jobs.pretraining.settings import PretrainBackbone
from jobs.pretraining.training import Training, train
from schemas.errors import SeerError, SettingsError
from seer_model.processes import scratch_folder
from seer_model.tracking import runs

__all__ = ["train_together"]

_LOG_PREFIX = "seer: "
_TIMEOUT = timedelta(hours=1)
_TAIL_LINES = 40


class _ProcessFailed(SeerError):
    """A process's error, with its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


def train_together(training: Training, count: int, tracking_uri: str) -> None:
    """Train in several processes, one per GPU or sharing the CPU's cores.

    Args:
        training: The inputs; with a device of `cuda`, every process gets its own GPU.
        count: Number of processes.
        tracking_uri: MLflow's.

    Raises:
        SeerError: A process failed with this error.
        SettingsError: There are too few GPUs, or the batch size is not a multiple of `count`.
    """
    settings = training.settings
    if settings.batch_size % count:
        raise SettingsError(
            f"--num-processes {count}: cannot share a batch of {settings.batch_size} among "
            f"{count} processes; give a --batch-size that is a multiple"
        )
    if training.device.startswith("cuda") and torch.cuda.device_count() < count:
        raise SettingsError(
            f"--num-processes {count}: there are {torch.cuda.device_count()} GPUs; "
            "give at most that, or --device cpu"
        )
    # `run_job` makes a subclass of the settings, which other processes cannot unpickle.
    plain = PretrainBackbone.model_construct(**dict(settings))
    training = replace(training, settings=plain)
    start_session("pretrain_backbone")
    # With `use_gpu` the distributor would hide GPUs from the processes, which choose their own.
    distributor = TorchDistributor(num_processes=count, local_mode=True, use_gpu=False)
    distributor.logger.setLevel(logging.WARNING)
    relay = _Relay()
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as folder, _importable():
        try:
            with redirect_stdout(relay):
                distributor.run(_process, training, tracking_uri, folder)
        except RuntimeError as error:
            for path in sorted(Path(folder).glob("failure-*.json")):
                failure = json.loads(path.read_text(encoding="utf-8"))
                raise _ProcessFailed(failure["message"], failure["exit_code"]) from None
            raise RuntimeError(
                "\n".join(["a process died; its last output:", *relay.tail])
            ) from error


@contextmanager
def _importable() -> Iterator[None]:
    """Let child processes import these packages from the same place as this one."""
    before = os.environ.get("PYTHONPATH")
    here = str(Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = here if before is None else here + os.pathsep + before
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


class _Relay(TextIOBase):
    """Passes on the processes' log, and keeps the last lines of their other output."""

    def __init__(self) -> None:
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def write(self, line: str) -> int:
        if line.startswith(_LOG_PREFIX):
            sys.stderr.write(line.removeprefix(_LOG_PREFIX))
        else:
            self.tail.append(line.rstrip())
        return len(line)


def _process(training: Training, tracking_uri: str, folder: str) -> None:
    """Train in one of the processes; an error goes to a file in `folder`."""
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    logging.basicConfig(format=f"{_LOG_PREFIX}%(asctime)s %(levelname)s %(message)s")
    for ours in ("jobs", "seer_model"):
        logging.getLogger(ours).setLevel(logging.WARNING if rank else logging.INFO)
    on_gpu = training.device.startswith("cuda")
    if on_gpu:
        training = replace(training, device=f"cuda:{local_rank}")
        torch.cuda.set_device(local_rank)
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // local))
    if rank == 0:
        runs.connect(tracking_uri)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_TIMEOUT)
    try:
        train(training)
    except SeerError as error:
        failure = {"message": str(error), "exit_code": error.exit_code}
        path = Path(folder) / f"failure-{rank:05d}.json"
        path.write_text(json.dumps(failure), encoding="utf-8")
        # The other processes may be waiting for this one; a failure makes torchrun end them.
        raise SystemExit(1) from error
    distributed.destroy_process_group()
