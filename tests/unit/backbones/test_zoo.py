"""Backbones in half precision, and the zoo that ships them."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.noisy_photos import draw_photo
from schemas.errors import SettingsError
from seer_model.backbones import zoo as package_zoo
from seer_model.backbones.backbone import NETWORK_FILES, load_backbone, save_backbone
from seer_model.backbones.constants import DEFAULT_BACKBONE
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.runtimes.base import CPU_BATCH
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.backbones.trunk import normalise
from seer_model.backbones.weights import make_backbone, random_backbone
from seer_model.backbones.zoo import load_zoo, names
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.pixels import prepare_photo
from seer_model.tracking.registry import resolve_backbone
from tests.support.trunks import features, some_trunk

torch.set_num_threads(1)


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of two backbones, and things that are none, in place of the package's."""
    for seed, name in enumerate(("tiny-shoes", "tiny-hats")):
        save_backbone(random_backbone("regnety_002", 64, seed), tmp_path / "zoo" / name, half=True)
        (tmp_path / "zoo" / name / "card.md").write_text("# A card\n", encoding="utf-8")
    (tmp_path / "zoo" / "__pycache__").mkdir()
    (tmp_path / "zoo" / "__init__.py").touch()
    monkeypatch.setattr(package_zoo, "_ZOO", tmp_path / "zoo")
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
    half = load_zoo("tiny-hats")
    whole = replace(half, weights=dict(half.weights))
    save_backbone(half, tmp_path / "float16")
    save_backbone(whole, tmp_path / "float32")
    for name, kind in (("float16", torch.float16), ("float32", torch.float32)):
        stored = load_file(tmp_path / name / "weights.safetensors")["stem.conv.weight"]
        assert stored.dtype == kind
        assert load_backbone(tmp_path / name).digest == half.digest


def test_zoo_names_and_loads(zoo: Path) -> None:
    assert names() == ["tiny-hats", "tiny-shoes"]
    assert load_zoo("tiny-hats").digest != load_zoo("tiny-shoes").digest


def test_zoo_is_read_from_a_zip(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is in one with spark-submit --py-files."""
    unzipped = load_zoo("tiny-hats").digest
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as file:
        for path in sorted(zoo.rglob("*")):
            file.write(path, path.relative_to(tmp_path))
    with zipfile.ZipFile(tmp_path / "package.zip") as file:
        monkeypatch.setattr(package_zoo, "_ZOO", zipfile.Path(file, "zoo/"))
        assert names() == ["tiny-hats", "tiny-shoes"]
        backbone = load_zoo("tiny-hats")
    assert backbone.digest == unzipped
    assert features(backbone).shape == (1, 368)


@pytest.mark.parametrize(
    "name", ["no-such", "", ".", "..", "__pycache__", "tiny-hats/../tiny-hats"]
)
def test_an_unknown_name_lists_the_known(zoo: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="known: tiny-hats, tiny-shoes"):
        load_zoo(name)


def test_eight_bits_are_near_floating_point_on_any_processor() -> None:
    """Some processors add pairs of products in 16 bits, and so could overflow."""
    drawn = [prepare_photo(draw_photo(seed), 224, PhotoLimits()) for seed in range(CPU_BATCH)]
    photos = np.stack(drawn)
    exact = load_zoo("retail-400mf-distilled")
    small = load_zoo("retail-400mf-distilled-int8")
    with torch.inference_mode():
        pixels = normalise(torch.from_numpy(photos), exact.preprocessing)
        before = exact.build()(pixels).numpy()
    after = open_runtime(small).start(photos)()
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    assert ((before * after).sum(axis=1) / norms).min() > 0.99
    assert small.weights_digest == exact.weights_digest
    assert small.quantized


def test_the_packages_zoo_is_sound(tmp_path: Path) -> None:
    assert DEFAULT_BACKBONE.removeprefix("zoo:") in names()
    folder = Path(package_zoo.__file__).parent
    assert sum(path.stat().st_size for path in folder.glob("*/*")) < 50_000_000
    for name in names():
        backbone = load_zoo(name)
        assert resolve_backbone(f"zoo:{name}").digest == backbone.digest
        assert features(backbone).shape == (1, backbone.width)
        assert backbone.commercial
        assert backbone.digest in (folder / name / "card.md").read_text(encoding="utf-8")
        # Files of earlier versions are read and written as they were.
        save_backbone(backbone, tmp_path / name, half=True)
        for file in ("backbone.json", "weights.safetensors", *NETWORK_FILES):
            assert (tmp_path / name / file).read_bytes() == (folder / name / file).read_bytes()
    with pytest.raises(SettingsError, match="zoo:no-such: unknown; known: "):
        resolve_backbone("zoo:no-such")
