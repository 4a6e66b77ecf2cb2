"""Quantized networks: their own digest, the same bits everywhere, and what cannot run them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.errors import BundleError, SettingsError
from seer_model.backbones.backbone import NETWORK_FILES, Backbone, load_backbone, save_backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.backbones.runtimes.quantization import quantize
from seer_model.backbones.weights import make_backbone
from seer_model.photos.pixels import Pixels
from tests.support.trunks import some_trunk

SIZE = 64


@pytest.fixture(scope="module")
def photos() -> list[Pixels]:
    """Noise at several scales."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(24):
        cells = int(rng.choice([2, 4, 8, 32]))
        noise = rng.integers(0, 256, (cells, cells, 3), np.uint8)
        found.append(noise.repeat(SIZE // cells, 0).repeat(SIZE // cells, 1))
    return found


@pytest.fixture(scope="module")
def whole() -> Backbone:
    """Every block counts; in timm's random networks most begin as the identity."""
    return make_backbone(
        "regnety_002", Preprocessing(SIZE), licence="mit", origin="here", weights=some_trunk()
    )


@pytest.fixture(scope="module")
def quantized(
    whole: Backbone, photos: list[Pixels], tmp_path_factory: pytest.TempPathFactory
) -> Backbone:
    return quantize(whole, photos, tmp_path_factory.mktemp("quantized"))


def features(backbone: Backbone, photos: list[Pixels], threads: int = 1) -> np.ndarray:
    return open_runtime(backbone, threads=threads).start(np.stack(photos[:8]))()


def test_features_are_near_and_not_the_same(
    whole: Backbone, quantized: Backbone, photos: list[Pixels]
) -> None:
    before, after = features(whole, photos), features(quantized, photos)
    assert not np.array_equal(before, after)
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    assert ((before * after).sum(axis=1) / norms).min() > 0.98
    assert open_runtime(quantized).name.startswith("openvino int8")


def test_they_are_the_same_to_the_bit_anywhere(quantized: Backbone, photos: list[Pixels]) -> None:
    expected = features(quantized, photos)
    assert np.array_equal(features(quantized, photos[7::-1]), expected[::-1])
    assert np.array_equal(features(quantized, photos, threads=2), expected)
    alone = open_runtime(quantized, batch_size=1)
    assert np.array_equal(alone.start(photos[3][None])(), expected[3:4])


def test_embeddings_are_kept_apart(
    whole: Backbone, quantized: Backbone, photos: list[Pixels], tmp_path: Path
) -> None:
    assert quantized.digest != whole.digest
    (tmp_path / "again").mkdir()
    (tmp_path / "fewer").mkdir()
    assert quantize(whole, photos, tmp_path / "again").digest == quantized.digest
    assert quantize(whole, photos[:8], tmp_path / "fewer").digest != quantized.digest


def test_it_is_saved_and_loaded(quantized: Backbone, photos: list[Pixels], tmp_path: Path) -> None:
    save_backbone(quantized, tmp_path)
    loaded = load_backbone(tmp_path)
    assert loaded.digest == quantized.digest
    assert np.array_equal(features(loaded, photos), features(quantized, photos))
    assert loaded.build().state_dict().keys() == quantized.weights.keys()


def test_in_half_precision_it_stays_quantized(
    quantized: Backbone, photos: list[Pixels], tmp_path: Path
) -> None:
    save_backbone(quantized, tmp_path, half=True)
    loaded = load_backbone(tmp_path)
    assert loaded.quantized == quantized.quantized
    assert np.array_equal(features(loaded, photos), features(quantized, photos))


def test_without_its_network_it_is_refused(quantized: Backbone, tmp_path: Path) -> None:
    save_backbone(quantized, tmp_path)
    record = (tmp_path / "backbone.json").read_text(encoding="utf-8")
    head, _, rest = record.partition('"network_sha256": {')
    without = f'{head}"network_sha256": null{rest.partition("}")[2]}'
    (tmp_path / "backbone.json").write_text(without, encoding="utf-8")
    for name in NETWORK_FILES:
        (tmp_path / name).unlink()
    with pytest.raises(BundleError, match="quantized, but without a network"):
        load_backbone(tmp_path)


def test_no_gpu_runs_it(quantized: Backbone) -> None:
    with pytest.raises(SettingsError, match="cannot run a quantized backbone"):
        open_runtime(quantized, "cuda:0")


def test_too_few_photos(whole: Backbone, photos: list[Pixels], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="8 photos at least"):
        quantize(whole, photos[:7], tmp_path)


def test_weights_are_those_before(whole: Backbone, quantized: Backbone) -> None:
    assert replace(quantized, network=None, quantized=None).digest == whole.digest
    assert all(torch.equal(quantized.weights[name], whole.weights[name]) for name in whole.weights)
