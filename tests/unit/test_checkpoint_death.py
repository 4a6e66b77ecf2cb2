"""Neither death at any moment nor a disk that is full or fails costs an earlier checkpoint."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from schemas.errors import SettingsError
from seer_model.pretraining.checkpoint import load_latest, save_checkpoint
from tests.small_disks import mounted_disk
from tests.unit.checkpoint_files import STATE, TENSORS, names, same

ROOT = Path(__file__).parents[2]

torch.set_num_threads(1)


KILL_WHILE_SAVING = """
import os, signal, sys, time
from pathlib import Path
import torch
from seer_model.pretraining.checkpoint import load_latest, save_checkpoint

torch.set_num_threads(1)
folder = Path(sys.argv[1])


def save_forever(told):
    last = load_latest(folder)
    step = last.step + 1 if last else 0
    while True:
        tensors = {"w": torch.full((100_000,), step)}
        for _ in range(2):  # The second replaces the first.
            save_checkpoint(folder, step, tensors, {"step": step}, keep=1)
            os.write(told, b"%d " % step)
        step += 1


for attempt in range(int(sys.argv[2])):
    hears, told = os.pipe()
    child = os.fork()
    if child == 0:
        save_forever(told)
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
    assert loaded.step in (saved, saved + 1), (loaded.step, saved)
    assert loaded.state == {"step": loaded.step}
    assert loaded.tensors["w"].unique().tolist() == [loaded.step]
"""


def run_script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )


def test_a_killed_process_always_leaves_a_good_checkpoint(tmp_path: Path) -> None:
    done = run_script(KILL_WHILE_SAVING, str(tmp_path), "5")
    # A damaged checkpoint would be told on standard error too.
    assert (done.stderr, done.returncode) == ("", 0)


KILL_AT_EVERY_OPERATION = """
import os, shutil, signal, sys
from pathlib import Path
import torch
from seer_model.pretraining.checkpoint import load_latest, save_checkpoint

torch.set_num_threads(1)
folder = Path(sys.argv[1])
EVENTS = {"open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "shutil.rmtree"}


def save(run, step):
    save_checkpoint(folder, step, {"w": torch.full((10,), run)}, {"run": run}, keep=1)


def save_and_die(step, operations):
    left = operations

    def count(event, _):
        nonlocal left
        if event in EVENTS:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    save(2, step)
    os._exit(0)


for step in (1, 2):  # Replace the checkpoint that is there, or add one and remove that.
    operations, died, found = 0, True, set()
    while died:
        shutil.rmtree(folder, ignore_errors=True)
        save(1, 1)
        child = os.fork()
        if child == 0:
            save_and_die(step, operations)
        died = os.waitpid(child, 0)[1] != 0
        loaded = load_latest(folder)
        assert loaded.tensors["w"].tolist() == [loaded.state["run"]] * 10
        found.add(loaded.state["run"])
        save(3, step)
        assert load_latest(folder).state == {"run": 3}
        assert [path.name for path in folder.iterdir()] == [f"step-{step:08d}"]
        operations += 1
    assert operations > 15, operations
    assert found == {1, 2}, found
"""


def test_a_death_before_any_file_operation_loses_nothing(tmp_path: Path) -> None:
    done = run_script(KILL_AT_EVERY_OPERATION, str(tmp_path / "run"))
    assert (done.stderr, done.returncode) == ("", 0)


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


SAVE_LIMITED = """
import resource, sys
from pathlib import Path
import torch
from schemas.errors import SettingsError
from seer_model.pretraining.checkpoint import save_checkpoint
folder = Path(sys.argv[1])
save_checkpoint(folder, 1, {"w": torch.zeros(10)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
for tensors, state in (({"w": torch.zeros(9_999)}, {}), ({}, {"long": "x" * 20_000})):
    try:
        save_checkpoint(folder, 2, tensors, state)
    except SettingsError as error:
        print(error)
"""


def test_a_file_that_may_not_grow_is_one_line_and_harms_nothing(tmp_path: Path) -> None:
    done = run_script(SAVE_LIMITED, str(tmp_path))
    assert (done.stderr, done.returncode) == ("", 0)
    lines = done.stdout.splitlines()
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
    assert "step-00000001: an old checkpoint cannot be removed" in caplog.text
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.step == 2
