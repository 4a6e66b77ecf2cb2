"""Trunks with distinct tensors, their features, and checkpoints of them."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from seer_model.backbones.backbone import Backbone
from seer_model.backbones.trunk import make_trunk

State = dict[str, torch.Tensor]


def features(backbone: Backbone, size: int = 32) -> torch.Tensor:
    return run(backbone.build(), size)


def run(trunk: torch.nn.Module, size: int = 32) -> torch.Tensor:
    with torch.inference_mode():
        output: torch.Tensor = trunk.eval()(
            torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        )
    assert output.std() > 0
    return output


def some_trunk(architecture: str = "regnety_002") -> State:
    """A trunk's state with statistics, affine parameters and counters that differ."""
    torch.manual_seed(1)
    state: State = make_trunk(architecture).state_dict()
    for name, tensor in state.items():
        if name.endswith(("bn.weight", "running_var")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("bn.bias", "running_mean", "fc1.bias", "fc2.bias")):
            tensor.uniform_(-0.1, 0.1)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(244_000)
    return state


def publish_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes timm read pretrained weights from a file instead of downloading them."""
    published = partial(timm.create_model, pretrained_cfg_overlay={"file": str(path)})
    monkeypatch.setattr(timm, "create_model", published)


class MakeFolder:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def published_seer(trunk: State) -> dict[str, Any]:
    """A trunk in VISSL's layout, with the other content of a published checkpoint."""
    layers = {
        "conv1.conv": "f.a.0",
        "conv1.bn": "f.a.1",
        "conv2.conv": "f.b.0",
        "conv2.bn": "f.b.1",
        "se.fc1": "f.se.excitation.0",
        "se.fc2": "f.se.excitation.2",
        "conv3.conv": "f.c",
        "conv3.bn": "f.final_bn",
        "downsample.conv": "proj",
        "downsample.bn": "bn",
    }
    saved: State = {}
    for name, tensor in trunk.items():
        layer, _, kind = name.rpartition(".")
        if layer in ("stem.conv", "stem.bn"):
            saved[f"_feature_blocks.conv1.stem.{int(layer == 'stem.bn')}.{kind}"] = tensor
            continue
        stage, block, part = int(layer[1]), int(layer.split(".")[1][1:]), layer.split(".", 2)[2]
        where = f"_feature_blocks.res{stage + 1}.block{stage}-{block - 1}"
        saved[f"{where}.{layers[part]}.{kind}"] = tensor
    heads = {"0.projection_head.0.weight": torch.ones(2, 2), "0.prototypes0.weight": torch.ones(3)}
    return {
        "phase_idx": 0,
        "iteration": 244_000,
        "loss": 5.5,
        "iteration_num": 0,
        "train_phase_idx": 0,
        "classy_state_dict": {
            "train": True,
            "base_model": {"model": {"trunk": saved, "heads": heads}, "meta": {}},
            "meters": [],
            "optimizer": {"optim": {"state": {0: {"momentum_buffer": torch.ones(2)}}}},
        },
    }


def trunk_of(checkpoint: dict[str, Any]) -> State:
    trunk: State = checkpoint["classy_state_dict"]["base_model"]["model"]["trunk"]
    return trunk
