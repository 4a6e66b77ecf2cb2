"""Neither death at any moment nor a disk that is full or fails costs an earlier checkpoint."""

import errno
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from schemas.errors import SettingsError
from seer_model.training.pretraining.checkpoint import load_latest, save_checkpoint
from tests.support.checkpoint_files import STATE, TENSORS, names, same
from tests.support.small_disks import mounted_disk
from tests.support.swav_training import run_process

torch.set_num_threads(1)


def save_forever(folder: Path, told: int) -> None:
    last = load_latest(folder)
    step = last.step + 1 if last else 0
    while True:
        tensors = {"w": torch.full((100_000,), step)}
        for _ in range(2):  # The second replaces the first.
            save_checkpoint(folder, step, tensors, {"step": step}, keep=1)
            os.write(told, b"%d " % step)
        step += 1


def kill_while_saving(folder: Path, attempts: int) -> None:
    for attempt in range(attempts):
        hears, told = os.pipe()
        child = os.fork()
        if child == 0:
            save_forever(folder, told)
        os.close(told)
        heard = os.read(hears, 1000)
        time.sleep(0.02 + 0.0017 * attempt)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(hears, 1000):
            heard += more
        os.close(hears)
        saved = max(map(int, heard.split()))
        loaded = load_latest(folder)
        assert loaded is not None
        assert loaded.step in (saved, saved + 1), (loaded.step, saved)
        assert loaded.state == {"step": loaded.step}
        assert loaded.tensors["w"].unique().tolist() == [loaded.step]


def test_a_killed_process_always_leaves_a_good_checkpoint(tmp_path: Path) -> None:
    # A damaged checkpoint would be told as well.
    assert run_process(kill_while_saving, tmp_path, 5) == ("", 0)


EVENTS = {"open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "shutil.rmtree"}


def save(folder: Path, run: int, step: int) -> None:
    save_checkpoint(folder, step, {"w": torch.full((10,), run)}, {"run": run}, keep=1)


def save_and_die(folder: Path, step: int, operations: int) -> None:
    left = operations

    def count(event: str, _: object) -> None:
        nonlocal left
        if event in EVENTS:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    save(folder, 2, step)
    os._exit(0)


def kill_at_every_operation(folder: Path, step: int) -> None:
    """Replace the checkpoint of step 1, or add one of step 2 and remove that."""
    operations, died, found = 0, True, set()
    while died:
        shutil.rmtree(folder, ignore_errors=True)
        save(folder, 1, 1)
        child = os.fork()
        if child == 0:
            save_and_die(folder, step, operations)
        died = os.waitpid(child, 0)[1] != 0
        loaded = load_latest(folder)
        assert loaded is not None
        assert loaded.tensors["w"].tolist() == [loaded.state["run"]] * 10
        found.add(loaded.state["run"])
        save(folder, 3, step)
        last = load_latest(folder)
        assert last is not None
        assert last.state == {"run": 3}
        assert names(folder) == [f"step-{step:08d}"]
        operations += 1
    assert operations > 15, operations
    assert found == {1, 2}, found


@pytest.mark.parametrize("step", [1, 2], ids=["replacing", "adding"])
def test_a_death_before_any_file_operation_loses_nothing(step: int, tmp_path: Path) -> None:
    assert run_process(kill_at_every_operation, tmp_path / "run", step) == ("", 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_disk(tmp_path, 1 << 20) as disk:
        yield disk


def test_a_full_disk_is_one_line_and_harms_nothing(small_disk: Path) -> None:
    save_checkpoint(small_disk, 1, TENSORS, STATE)
    with pytest.raises(SettingsError) as caught:
        save_checkpoint(small_disk, 2, {"large": torch.zeros(1 << 20)}, STATE)
    message = str(caught.value)
    assert message.startswith(f"{small_disk / 'step-00000002'}: the checkpoint cannot be written")
    assert os.strerror(errno.ENOSPC) in message
    assert "\n" not in message
    assert names(small_disk) == ["step-00000001"]
    loaded = load_latest(small_disk)
    assert loaded is not None
    assert same(loaded.tensors, TENSORS)


def save_limited(folder: Path) -> None:
    save_checkpoint(folder, 1, {"w": torch.zeros(10)}, {})
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    cases: list[tuple[dict[str, torch.Tensor], dict[str, str]]] = [
        ({"w": torch.zeros(9_999)}, {}),
        ({}, {"long": "x" * 20_000}),
    ]
    for tensors, state in cases:
        try:
            save_checkpoint(folder, 2, tensors, state)
        except SettingsError as error:
            os.write(1, f"{error}\n".encode())


def test_a_file_that_may_not_grow_is_one_line_and_harms_nothing(tmp_path: Path) -> None:
    told, exit_code = run_process(save_limited, tmp_path)
    assert exit_code == 0, told
    lines = told.splitlines()
    assert len(lines) == 2
    assert all("step-00000002: the checkpoint cannot be written (" in line for line in lines)
    assert names(tmp_path) == ["step-00000001"]


def test_a_failing_flush_is_one_line_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    save_checkpoint(tmp_path, 1, TENSORS, STATE)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SettingsError, match=os.strerror(errno.EIO)):
        save_checkpoint(tmp_path, 2, TENSORS, STATE)
    assert names(tmp_path) == ["step-00000001"]


def test_an_old_checkpoint_that_cannot_be_removed_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    save_checkpoint(tmp_path, 1, TENSORS, STATE)
    monkeypatch.setattr(shutil, "rmtree", refuse)
    save_checkpoint(tmp_path, 2, TENSORS, STATE, keep=1)
    assert "step-00000001: cannot remove the old checkpoint" in caplog.text
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.step == 2
