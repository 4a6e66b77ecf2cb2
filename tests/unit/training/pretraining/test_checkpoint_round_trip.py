"""What is saved in a checkpoint comes back, to the bit and in its types."""

import json
import math
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seer_model.training.pretraining.checkpoint import (
    flatten_state,
    load_latest,
    save_checkpoint,
    unflatten_state,
)
from tests.support.checkpoint_files import STATE, TENSORS, names, same

torch.set_num_threads(1)


def through_disk(state: dict[str, Any], folder: Path) -> dict[Any, Any]:
    save_checkpoint(folder, 1, *flatten_state(state))
    loaded = load_latest(folder)
    assert loaded is not None
    return unflatten_state(loaded.tensors, loaded.state)


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
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\]\[0\]: a set cannot be saved"):
        flatten_state({"a": {1: [{1, 2}]}})
