"""A pretraining in several processes of this machine, through Spark's TorchDistributor."""

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

from jobs.pretraining import Training, train
from jobs.session import start_session
from schemas.errors import SeerError, SettingsError
from seer_model import registry

__all__ = ["train_together"]

_OURS = "seer: "
_PATIENCE = timedelta(hours=1)
_TAIL = 40


class _ProcessFailed(SeerError):
    """What one of the processes ended with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


def train_together(training: Training, count: int, tracking_uri: str) -> None:
    """Train in processes of this machine, one a GPU or sharing the CPU's cores.

    Args:
        training: What to do; a device of `cuda` is each process's own.
        count: How many processes.
        tracking_uri: MLflow's.

    Raises:
        SeerError: What `seer_model` raised in a process, with its exit code.
        SettingsError: There are not as many GPUs, or a batch cannot be shared out evenly.
    """
    if training.recipe.batch_size % count:
        raise SettingsError(
            f"--num-processes {count}: cannot share a batch of {training.recipe.batch_size} among "
            f"{count} processes; give a --batch-size that is a multiple"
        )
    if training.device.startswith("cuda") and torch.cuda.device_count() < count:
        raise SettingsError(
            f"--num-processes {count}: there are {torch.cuda.device_count()} GPUs; "
            "give at most that, or --device cpu"
        )
    start_session("pretrain_backbone")
    # Told not to mind the GPUs, the distributor leaves them to the processes.
    distributor = TorchDistributor(num_processes=count, local_mode=True, use_gpu=False)
    distributor.logger.setLevel(logging.WARNING)
    relay = _Relay()
    with tempfile.TemporaryDirectory(prefix="seer-") as folder, _importable():
        try:
            with redirect_stdout(relay):
                distributor.run(_process, training, tracking_uri, folder)
        except RuntimeError as error:
            for path in sorted(Path(folder).glob("failure-*.json")):
                failure = json.loads(path.read_text(encoding="utf-8"))
                raise _ProcessFailed(failure["message"], failure["exit_code"]) from None
            raise RuntimeError("\n".join(["a process died; the last it said:", *relay.tail])) from (
                error
            )


@contextmanager
def _importable() -> Iterator[None]:
    """Let child processes import these packages from wherever this process has them."""
    before = os.environ.get("PYTHONPATH")
    here = str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = here if before is None else here + os.pathsep + before
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


class _Relay(TextIOBase):
    """Passes on what the processes log, and keeps the last of what others print in them."""

    def __init__(self) -> None:
        self.tail: deque[str] = deque(maxlen=_TAIL)

    def write(self, line: str) -> int:
        if line.startswith(_OURS):
            sys.stderr.write(line.removeprefix(_OURS))
        else:
            self.tail.append(line.rstrip())
        return len(line)


def _process(training: Training, tracking_uri: str, folder: str) -> None:
    """What every process runs."""
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    logging.basicConfig(format=f"{_OURS}%(asctime)s %(levelname)s %(message)s")
    for ours in ("jobs", "seer_model"):
        logging.getLogger(ours).setLevel(logging.WARNING if rank else logging.INFO)
    on_gpu = training.device.startswith("cuda")
    if on_gpu:
        training = replace(training, device=f"cuda:{local_rank}")
        torch.cuda.set_device(local_rank)
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // local))
    if rank == 0:
        registry.connect(tracking_uri)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        train(training)
    except SeerError as error:
        failure = {"message": str(error), "exit_code": error.exit_code}
        path = Path(folder) / f"failure-{rank:05d}.json"
        path.write_text(json.dumps(failure), encoding="utf-8")
        # Not a return: the others may wait for this process, and torchrun then ends them.
        raise SystemExit(1) from error
    distributed.destroy_process_group()
