import errno
import json
import logging
import math
import os
import shutil
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SettingsError
from seer_model.pretraining.checkpoint import (
    flatten_state,
    load_latest,
    save_checkpoint,
    unflatten_state,
)

ROOT = Path(__file__).parents[2]
TENSORS = {"weight": torch.arange(6, dtype=torch.float32).reshape(2, 3)}
STATE = {"epoch": 3, "note": "é", "rate": 0.1}

torch.set_num_threads(1)


def same(left: Any, right: Any) -> bool:
    """Equal in value and type all the way down; tensors bit for bit."""
    if isinstance(left, torch.Tensor):
        return (
            isinstance(right, torch.Tensor)
            and (left.dtype, left.shape) == (right.dtype, right.shape)
            and left.contiguous().flatten().view(torch.uint8).tolist()
            == right.contiguous().flatten().view(torch.uint8).tolist()
        )
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and (left == right or (left != left and right != right))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def through_disk(state: dict[str, Any], folder: Path) -> dict[Any, Any]:
    save_checkpoint(folder, 1, *flatten_state(state))
    loaded = load_latest(folder)
    assert loaded is not None
    return unflatten_state(loaded.tensors, loaded.state)


# What is saved comes back.


def test_round_trip(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "new" / "run", 1234, TENSORS, STATE)
    assert path == tmp_path / "new" / "run" / "step-00001234"
    assert names(path) == ["checkpoint.json", "state.json", "tensors.safetensors"]
    loaded = load_latest(tmp_path / "new" / "run")
    assert loaded is not None
    assert (loaded.path, loaded.step, loaded.state) == (path, 1234, STATE)
    assert same(loaded.tensors, TENSORS)


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, torch.float16, torch.float64, torch.uint8, torch.int64, torch.bool],
    ids=str,
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)], ids=str)
def test_every_kind_of_tensor_is_the_same_to_the_bit(
    dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path
) -> None:
    tensor = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 9).to(dtype)
    save_checkpoint(tmp_path, 0, {"tensor": tensor}, {})
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert same(loaded.tensors["tensor"], tensor)


def test_tensors_that_are_not_finite_shared_transposed_or_trained(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.rand(3, 4))
    tensors = {
        "weight": weight,
        "tied": weight,
        "transposed": weight.t(),
        "row": weight[1],
        "not finite": torch.tensor([math.nan, math.inf, -0.0]),
    }
    save_checkpoint(tmp_path, 0, tensors, {})
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert same(loaded.tensors[name], tensor.detach())
        assert not loaded.tensors[name].requires_grad


def test_loaded_tensors_outlive_their_files_and_do_not_change_them(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 0, TENSORS, {})
    first, second = load_latest(tmp_path), load_latest(tmp_path)
    assert first is not None
    assert second is not None
    first.tensors["weight"].zero_()
    again = load_latest(tmp_path)
    assert again is not None
    shutil.rmtree(path)
    assert same(again.tensors, TENSORS)
    assert same(second.tensors, TENSORS)


def optimizer(kind: str, model: torch.nn.Module) -> torch.optim.Optimizer:
    if kind == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.8, 0.95), amsgrad=True)
    return torch.optim.SGD(
        [{"params": [p], "lr": 0.1 / (i + 1)} for i, p in enumerate(model.parameters())],
        momentum=0.9,
        nesterov=True,
    )


class Run:
    """A tiny training with everything that must be saved: weights, optimizer, two generators."""

    def __init__(self, kind: str, dtype: torch.dtype) -> None:
        torch.manual_seed(1)
        self.model = torch.nn.Linear(4, 2).to(dtype)
        self.optimizer = optimizer(kind, self.model)
        self.generator = torch.Generator().manual_seed(5)

    def step(self) -> None:
        dtype = self.model.weight.dtype
        inputs = torch.rand(8, 4, generator=self.generator).to(dtype) + torch.rand(4).to(dtype)
        self.optimizer.zero_grad()
        self.model(inputs).square().sum().backward()
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[Any, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch_rng"])
        self.generator.set_state(state["generator"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_resumed_training_goes_on_as_if_never_stopped(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    with torch.random.fork_rng(devices=[]):
        run = Run(kind, dtype)
        for _ in range(3):
            run.step()
        save_checkpoint(tmp_path, 3, *flatten_state(run.state()))
        for _ in range(3):
            run.step()
        expected = run.state()

        resumed = Run(kind, dtype)
        loaded = load_latest(tmp_path)
        assert loaded is not None
        resumed.restore(unflatten_state(loaded.tensors, loaded.state))
        for _ in range(3):
            resumed.step()
        assert same(resumed.state(), expected)


def test_nested_states_come_back_exactly(tmp_path: Path) -> None:
    state = {
        "of any type": [None, True, 1, 1.0, -0.0, math.inf, math.nan, 2**100, "tensor", ()],
        "looks like a record": {"tensor": "of any type", "dict": [["a", 1]]},
        "keys": {1: torch.ones(1), "1": torch.zeros(2), None: (1, [2, (3,)]), True + 1: {}, 0.5: 0},
        "": {"a.b": torch.ones(3), "a": {"b": torch.zeros(4)}},
    }
    assert same(through_disk(state, tmp_path), state)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.integers() | st.text(max_size=5)
NESTED = st.recursive(
    SCALARS | st.builds(torch.tensor, st.lists(st.integers(0, 9), max_size=3)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, NESTED, max_size=4))
def test_flatten_is_undone_by_unflatten_through_json(state: dict[Any, Any]) -> None:
    tensors, record = flatten_state(state)
    assert same(unflatten_state(tensors, json.loads(json.dumps(record))), state)


def test_ordered_dicts_and_numbers_of_numpy_become_plain() -> None:
    state = unflatten_state(*flatten_state(OrderedDict(rate=np.float64(0.25))))
    assert same(state, {"rate": 0.25})


def test_flatten_says_where_something_cannot_be_saved() -> None:
    with pytest.raises(TypeError, match=r"may not hold a set: state\['a'\]\[1\]\[0\]"):
        flatten_state({"a": {1: [{1, 2}]}})


# Which checkpoints there are.


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        save_checkpoint(tmp_path, step, TENSORS, STATE)
    assert names(tmp_path) == ["step-00000015", "step-00000020"]
    save_checkpoint(tmp_path, 25, TENSORS, STATE, keep=1)
    assert names(tmp_path) == ["step-00000025"]


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, step, TENSORS, {})
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.step == 100_000_000


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    for run in range(2):
        save_checkpoint(tmp_path, 7, TENSORS, {"run": run})
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.state == {"run": 1}
    assert names(tmp_path) == ["step-00000007"]


def test_a_death_between_the_two_renames_of_a_replacement_loses_nothing(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 7, TENSORS, {"run": 0}).rename(tmp_path / "step-00000007.old")
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert (loaded.step, loaded.state) == (7, {"run": 0})
    save_checkpoint(tmp_path, 7, TENSORS, {"run": 1})
    assert names(tmp_path) == ["step-00000007"]


def test_later_steps_and_foreign_files_are_left_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 40, TENSORS, {})
    (tmp_path / "step-7").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, step, TENSORS, {}, keep=1)
    assert names(tmp_path) == ["notes.txt", "step-00000030", "step-00000040", "step-7"]


def test_what_a_run_left_that_died_while_saving_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".saving").mkdir()
    (tmp_path / ".saving" / "state.json").write_text("{")
    assert load_latest(tmp_path) is None
    save_checkpoint(tmp_path, 1, TENSORS, {})
    assert names(tmp_path) == ["step-00000001"]


def test_no_checkpoint(tmp_path: Path) -> None:
    assert load_latest(tmp_path) is None
    assert load_latest(tmp_path / "absent") is None


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="file: cannot be read"):
        load_latest(tmp_path / "file")
    with pytest.raises(SettingsError, match="the checkpoint cannot be written"):
        save_checkpoint(tmp_path / "file", 1, TENSORS, {})


@pytest.mark.parametrize(("step", "keep"), [(-1, 2), (1, 0)])
def test_numbers_out_of_range(step: int, keep: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be"):
        save_checkpoint(tmp_path, step, TENSORS, {}, keep=keep)


def test_a_state_that_is_not_json_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_checkpoint(tmp_path, 1, TENSORS, {"set": {1}})
    assert names(tmp_path) == []


# Damage.


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero_the_end(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-8] + bytes(8))


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def not_an_object(path: Path) -> None:
    path.write_text("[]")


FILES = ["checkpoint.json", "state.json", "tensors.safetensors"]
DAMAGES: list[Callable[[Path], None]] = [
    truncate,
    empty,
    zero_the_end,
    flip_a_bit,
    make_a_folder,
    Path.unlink,
    not_an_object,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("file", FILES)
def test_damage_falls_back_to_the_one_before_with_a_warning(
    file: str, damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoint(tmp_path, 1, TENSORS, STATE)
    damaged = save_checkpoint(tmp_path, 2, TENSORS, STATE) / file
    damage(damaged)
    with caplog.at_level(logging.WARNING):
        loaded = load_latest(tmp_path)
    assert loaded is not None
    assert (loaded.step, loaded.state) == (1, STATE)
    assert same(loaded.tensors, TENSORS)
    (record,) = caplog.records
    # A digest that differs may be damaged itself, so both files are named then.
    assert str(damaged.parent) in record.getMessage()
    assert damaged.name in record.getMessage()
    assert "\n" not in record.getMessage()


def test_every_bit_of_the_record_counts(tmp_path: Path) -> None:
    record = save_checkpoint(tmp_path, 2, TENSORS, STATE) / "checkpoint.json"
    good = record.read_bytes()
    content = json.loads(good)
    for position in range(len(good)):
        flipped = bytearray(good)
        flipped[position] ^= 1 << position % 8
        record.write_bytes(flipped)
        try:
            harmless = json.loads(flipped) == content  # White space.
        except ValueError:
            harmless = False
        assert (load_latest(tmp_path) is not None) == harmless


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"format": 2, "step": 1, "sha256": {}},
        {"format": 1, "step": 2, "sha256": {}},
        {"format": 1, "step": 1, "sha256": []},
        {"format": 1, "step": 1, "sha256": {"state.json": None}},
        {"format": 1, "step": 1, "sha256": {}, "more": 1},
    ],
    ids=str,
)
def test_records_that_are_not_of_this_checkpoint(record: dict[str, Any], tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, TENSORS, STATE)
    (path / "checkpoint.json").write_text(json.dumps(record))
    assert load_latest(tmp_path) is None


def test_a_file_in_the_place_of_a_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoint(tmp_path, 1, TENSORS, STATE)
    (tmp_path / "step-00000002").touch()
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.step == 1
    assert "step-00000002" in caplog.text


def test_nothing_intact_is_no_checkpoint_and_two_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        flip_a_bit(save_checkpoint(tmp_path, step, TENSORS, STATE) / "tensors.safetensors")
    assert load_latest(tmp_path) is None
    assert [r.getMessage().count("its digest is not the one") for r in caplog.records] == [1, 1]


# Death and a full disk.

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
def small_disk(tmp_path: Path) -> Any:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("mounting is not permitted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


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
