"""Tensors of others: of the wrong kind, of no numbers, or of more than their file holds."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from seer_model.backbone import load_backbone
from seer_model.files import load_tensors
from seer_model.vissl import load_vissl
from tests.unit.hostile.refusals import EditJson, refusal, seal
from tests.unit.trunks import State, published_seer, some_trunk, trunk_of

# The file


def header(entries: str, size: int | None = None, body: bytes = b"") -> bytes:
    data = entries.encode()
    return (len(data) if size is None else size).to_bytes(8, "little") + data + body


def entry(name: str, kind: str, shape: list[int], start: int, end: int) -> str:
    return f'"{name}":' + json.dumps({"dtype": kind, "shape": shape, "data_offsets": [start, end]})


ONE, TWO = entry("a", "F32", [1], 0, 4), entry("b", "F32", [1], 0, 4)
HUGE = entry("a", "F32", [1 << 40], 0, 4)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(header("{}", 1 << 62), id="endless header"),
        pytest.param(header(" " * (9 << 20)), id="header of 9 MB"),
        pytest.param(header("[" * 1_000_000), id="deep"),
        pytest.param(header("\x80\x04cos\nsystem"), id="pickle"),
        pytest.param(header(f"{{{ONE},{ONE}}}", body=bytes(4)), id="one twice"),
        pytest.param(header(f"{{{ONE},{TWO}}}", body=bytes(4)), id="overlap"),
        pytest.param(header(f"{{{entry('a', 'F32', [2], 0, 4)}}}", body=bytes(4)), id="short"),
        pytest.param(header(f"{{{HUGE}}}", body=bytes(4)), id="terabytes"),
        pytest.param(header(f"{{{entry('a', 'F32', [-1], 0, 4)}}}", body=bytes(4)), id="negative"),
        pytest.param(header(f"{{{entry('a', 'F32', [1], 4, 8)}}}", body=bytes(8)), id="hole"),
        pytest.param(header(f"{{{ONE}}}", body=bytes(2)), id="ends early"),
        pytest.param(header(f"{{{ONE}}}", body=bytes(999)), id="goes on"),
        pytest.param(header(f"{{{entry('a', 'X9', [1], 0, 4)}}}", body=bytes(4)), id="no type"),
        *(
            pytest.param(header(f"{{{entry('a', kind, [1], 0, size)}}}", body=bytes(size)), id=kind)
            for kind, size in (
                ("F64", 8), ("I8", 1), ("U8", 1), ("I32", 4), ("BOOL", 1), ("C64", 8),
                ("F8_E4M3", 1), ("F8_E5M2", 1), ("U64", 8),
            )
        ),
    ],
)  # fmt: skip
def test_hostile_safetensors_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tensors.safetensors"
    path.write_bytes(data)
    refusal(path, load_tensors)


def test_a_name_of_lines_stays_in_one(tmp_path: Path) -> None:
    path = tmp_path / "tensors.safetensors"
    path.write_bytes(
        header(f"{{{entry('a' + chr(92) + 'n' * 9000, 'F64', [1], 0, 8)}}}", body=bytes(8))
    )
    assert "is of type torch.float64" in refusal(path, load_tensors)


# In a bundle

STEM, COUNTER = "stem.conv.weight", "stem.bn.num_batches_tracked"


def change_tensors(path: Path, change: Callable[[State], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def change_head(folder: Path, edit_json: EditJson, change: Callable[[State], object]) -> None:
    tensors = {
        name: tensor.clone() for name, tensor in load_file(folder / "head.safetensors").items()
    }
    change(tensors)
    save_file(tensors, folder / "head.safetensors")
    seal(folder, edit_json)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda t: t.update(bias=t["bias"].long()), "floating-point", id="int"),
        pytest.param(lambda t: t.update(bias=t["bias"].double()), "torch.float64", id="double"),
        pytest.param(lambda t: t.update(weight=t["weight"].T.contiguous()), "tensors", id="turned"),
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
    change_head(folder, edit_json, change)
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
    assert message in refusal(backbone_folder, load_backbone)


# In a checkpoint of VISSL

FIRST = "_feature_blocks.res2.block1-0.f.a.0.weight"


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        pytest.param(torch.zeros(1).expand(24, 32, 1, 1), "is not an array", id="one for all"),
        pytest.param(torch.zeros(24, 32, 1, 1).to_sparse(), "is not an array", id="sparse"),
        pytest.param(torch.zeros(24, 32, 1, 1, device="meta"), "is not an array", id="no memory"),
        pytest.param(torch.zeros(24, 32, 1, 1).double(), "is not an array", id="double"),
        pytest.param(torch.zeros(24, 32, 1, 1).bool(), "is not an array", id="bool"),
        pytest.param(torch.zeros(24, 32, 1, 1).cfloat(), "is not an array", id="complex"),
        pytest.param(torch.zeros(24, 32, 2, 2)[:, :, :1, :1], "is not an array", id="a part"),
        pytest.param(torch.zeros(24, 32, 1, 1).long(), "is integer of", id="integers"),
    ],
)
def test_odd_tensors_of_a_checkpoint_are_refused(
    tmp_path: Path, tensor: torch.Tensor, message: str
) -> None:
    checkpoint = published_seer(some_trunk())
    trunk_of(checkpoint)[FIRST] = tensor
    assert message in refusal(saved(checkpoint, tmp_path), load_vissl)


def saved(checkpoint: dict[str, Any], folder: Path) -> Path:
    path = folder / "seer.torch"
    torch.save(checkpoint, path)
    return path


def test_tensors_that_share_their_numbers_may_not_exceed_the_file(tmp_path: Path) -> None:
    """Of 1.3 billion parameters, each is the beginning of the same few numbers."""
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


def test_names_of_a_checkpoint_stay_in_one_line(tmp_path: Path) -> None:
    checkpoint = published_seer(some_trunk())
    trunk_of(checkpoint)["_feature_blocks.a\nb" + "x" * 9000] = torch.zeros(1)
    refusal(saved(checkpoint, tmp_path), load_vissl)
