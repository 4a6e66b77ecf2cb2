"""Backbones in half precision, and the zoo that keeps them so."""

import zipfile
from importlib.resources.abc import Traversable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from schemas.errors import SettingsError
from seer_model import zoo as package_zoo
from seer_model.backbone import load_backbone, make_backbone, random_backbone, save_backbone
from seer_model.preprocessing import Preprocessing
from seer_model.registry import resolve_backbone
from seer_model.zoo import DEFAULT, load_zoo, names
from tests.unit.trunks import features, some_trunk

torch.set_num_threads(1)


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Two backbones in half precision, and something that is none."""
    for seed, name in enumerate(("tiny-shoes", "tiny-hats")):
        save_backbone(random_backbone("regnety_002", 64, seed), tmp_path / "zoo" / name, half=True)
        (tmp_path / "zoo" / name / "card.md").write_text("# A card\n", encoding="utf-8")
    (tmp_path / "zoo" / "__pycache__").mkdir()
    (tmp_path / "zoo" / "__init__.py").touch()
    return tmp_path / "zoo"


def test_half_precision_is_read_back_as_the_rounded_backbone(tmp_path: Path) -> None:
    whole = make_backbone(
        "regnety_002", Preprocessing(), licence="mit", origin="here", weights=some_trunk()
    )
    save_backbone(whole, tmp_path / "whole")
    save_backbone(whole, tmp_path / "half", half=True)
    sizes = [(tmp_path / f / "weights.safetensors").stat().st_size for f in ("half", "whole")]
    assert sizes[0] < 0.55 * sizes[1]
    half = load_backbone(tmp_path / "half")
    assert {w.dtype for w in half.weights.values()} == {torch.float32, torch.int64}
    for name, tensor in whole.weights.items():
        rounded = tensor.half().float() if tensor.ndim > 1 else tensor
        assert torch.equal(half.weights[name], rounded)
    assert torch.allclose(features(half), features(whole), rtol=0.01, atol=0.01)
    assert half.digest != whole.digest


def test_a_digest_does_not_depend_on_how_weights_are_stored(tmp_path: Path, zoo: Path) -> None:
    """A bundle made with a backbone of the zoo stores float32, and is of the same features."""
    half = load_zoo("tiny-hats", zoo)
    save_backbone(half, tmp_path / "float32")
    save_backbone(half, tmp_path / "float16", half=True)
    assert load_file(tmp_path / "float32" / "weights.safetensors")["stem.conv.weight"].dtype == (
        torch.float32
    )
    assert load_backbone(tmp_path / "float32").digest == half.digest
    assert load_backbone(tmp_path / "float16").digest == half.digest


def test_zoo_names_and_loads(zoo: Path) -> None:
    assert names(zoo) == ["tiny-hats", "tiny-shoes"]
    assert load_zoo("tiny-hats", zoo).digest != load_zoo("tiny-shoes", zoo).digest


def test_zoo_is_read_from_a_zip(zoo: Path, tmp_path: Path) -> None:
    """spark-submit --py-files has the package in one."""
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as file:
        for path in sorted(zoo.rglob("*")):
            file.write(path, path.relative_to(tmp_path))
    with zipfile.ZipFile(tmp_path / "package.zip") as file:
        root: Traversable = zipfile.Path(file, "zoo/")
        assert names(root) == ["tiny-hats", "tiny-shoes"]
        assert load_zoo("tiny-hats", root).digest == load_zoo("tiny-hats", zoo).digest
        assert features(load_zoo("tiny-hats", root)).shape == (1, 368)


@pytest.mark.parametrize(
    "name", ["no-such", "", ".", "..", "__pycache__", "tiny-hats/../tiny-hats"]
)
def test_unknown_in_the_zoo_lists_the_known(zoo: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="known: tiny-hats, tiny-shoes"):
        load_zoo(name, zoo)


def test_the_zoo_of_the_package_is_sound() -> None:
    assert DEFAULT.removeprefix("zoo:") in names()
    folder = Path(package_zoo.__file__).parent
    assert sum(path.stat().st_size for path in folder.glob("*/*")) < 12_000_000
    for name in names():
        backbone = load_zoo(name)
        assert resolve_backbone(f"zoo:{name}").digest == backbone.digest
        assert features(backbone).shape == (1, backbone.width)
        assert backbone.commercial
        assert backbone.digest in (folder / name / "card.md").read_text(encoding="utf-8")
    with pytest.raises(SettingsError, match="zoo:no-such: unknown; known: "):
        resolve_backbone("zoo:no-such")
