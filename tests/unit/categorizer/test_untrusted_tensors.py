"""Tensors that do not fit, in bundles, backbones and checkpoints."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from seer_model.backbones.vissl import load_vissl
from tests.support.refusals import EditJson, load_whole_backbone, refusal, seal
from tests.support.trunks import State, published_seer, some_trunk, trunk_of

# In a bundle

STEM, COUNTER = "stem.conv.weight", "stem.bn.num_batches_tracked"


def change_tensors(path: Path, change: Callable[[State], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda t: t.update(bias=t["bias"].long()), "is of type int64", id="int"),
        pytest.param(lambda t: t.update(bias=t["bias"].double()), "float64", id="double"),
        pytest.param(
            lambda t: t.update(weight=t["weight"].T.contiguous()), "tensors are", id="turned"
        ),
        pytest.param(lambda t: t.update(bias=t["bias"][None]), "tensors are", id="row"),
        pytest.param(lambda t: t.update({"x" * 9000: t["bias"].clone()}), "tensors are", id="more"),
        pytest.param(lambda t: t["weight"].fill_(torch.nan), "not finite", id="NaN"),
        pytest.param(
            lambda t: t.update(weight=t["weight"].half().fill_(torch.inf)), "not finite", id="inf"
        ),
    ],
)
def test_a_head_that_does_not_fit_is_refused(
    folder: Path, edit_json: EditJson, change: Callable[[State], object], message: str
) -> None:
    change_tensors(folder / "head.safetensors", change)
    seal(folder, edit_json)
    assert message in refusal(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda t: t.update({STEM: t[STEM].long()}), "is integer of shape", id="integers"
        ),
        pytest.param(
            lambda t: t.update({COUNTER: torch.zeros(())}), "is floating point of", id="counter"
        ),
        pytest.param(lambda t: t.update({STEM: t[STEM].double()}), "torch.float64", id="double"),
        pytest.param(lambda t: t[STEM].fill_(-torch.inf), "not finite", id="infinite"),
        pytest.param(lambda t: t.clear(), "is missing, not", id="none"),
        pytest.param(lambda t: t.update({"a\nb": torch.ones(1)}), "not missing", id="two lines"),
        pytest.param(
            lambda t: t.update({STEM: t[STEM][..., 0].contiguous()}),
            "of shape (32, 3, 3)",
            id="flat",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    backbone_folder: Path,
    seal_weights: Callable[[Path], None],
    change: Callable[[State], object],
    message: str,
) -> None:
    path = backbone_folder / "weights.safetensors"
    change_tensors(path, change)
    seal_weights(backbone_folder)
    assert message in refusal(backbone_folder, load_whole_backbone)


# In a SEER checkpoint

FIRST = "_feature_blocks.res2.block1-0.f.a.0.weight"


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        pytest.param(torch.zeros(1).expand(24, 32, 1, 1), "not a plain array", id="one for all"),
        pytest.param(torch.zeros(24, 32, 1, 1).to_sparse(), "not a plain array", id="sparse"),
        pytest.param(torch.zeros(24, 32, 1, 1, device="meta"), "not a plain array", id="no memory"),
        pytest.param(torch.zeros(24, 32, 1, 1).double(), "not a plain array", id="double"),
        pytest.param(torch.zeros(24, 32, 1, 1).bool(), "not a plain array", id="bool"),
        pytest.param(torch.zeros(24, 32, 1, 1).cfloat(), "not a plain array", id="complex"),
        pytest.param(torch.zeros(24, 32, 2, 2)[:, :, :1, :1], "not a plain array", id="a part"),
        pytest.param(torch.zeros(24, 32, 1, 1).long(), "is integer of", id="integers"),
    ],
)
def test_odd_tensors_in_a_checkpoint_are_refused(
    tmp_path: Path, tensor: torch.Tensor, message: str
) -> None:
    checkpoint = published_seer(some_trunk())
    trunk_of(checkpoint)[FIRST] = tensor
    assert message in refusal(saved(checkpoint, tmp_path), load_vissl)


def saved(checkpoint: dict[str, Any], folder: Path) -> Path:
    path = folder / "seer.torch"
    torch.save(checkpoint, path)
    return path


def test_tensors_that_share_memory_may_not_exceed_the_file(tmp_path: Path) -> None:
    """A small file could stand for a trunk of any size."""
    checkpoint = published_seer(some_trunk())
    trunk = trunk_of(checkpoint)
    numbers = torch.zeros(max(tensor.numel() for tensor in trunk.values()))
    for name, tensor in trunk.items():
        if tensor.is_floating_point():
            trunk[name] = numbers[: tensor.numel()].view(tensor.shape)
    assert "its tensors are larger than the file" in refusal(
        saved(checkpoint, tmp_path), load_vissl
    )


def test_a_compressed_checkpoint_is_refused(tmp_path: Path) -> None:
    """A gigabyte of zeros would fit into a megabyte."""
    path = saved(published_seer(some_trunk()), tmp_path)
    with zipfile.ZipFile(path) as file:
        entries = {entry.filename: file.read(entry) for entry in file.infolist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in entries.items():
            packed = zipfile.ZIP_DEFLATED if name.endswith("data.pkl") else zipfile.ZIP_STORED
            file.writestr(name, data, packed)
    assert "not a readable checkpoint" in refusal(path, load_vissl)


def test_a_long_tensor_name_stays_in_one_line(tmp_path: Path) -> None:
    checkpoint = published_seer(some_trunk())
    trunk_of(checkpoint)["_feature_blocks.a\nb" + "x" * 9000] = torch.zeros(1)
    refusal(saved(checkpoint, tmp_path), load_vissl)
