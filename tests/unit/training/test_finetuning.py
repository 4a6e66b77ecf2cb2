"""Fine-tuning on three dozen drawn photos of two colours."""

import io
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import seer_model.training.finetuning
from schemas.errors import DataContractError, SettingsError
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.runtimes.pytorch import TorchRuntime
from seer_model.backbones.trunk import normalise
from seer_model.backbones.weights import random_backbone
from seer_model.photos.source import PhotoSource
from seer_model.training.finetuning import FinetuneRecipe, _with_statistics_of, finetune
from tests.support.watching_loops import Watched

RECIPE = FinetuneRecipe(epochs=3, batch_size=8, crop_size=32, bf16=False, learning_rate=2e-3)
LABELS = np.arange(24) % 2
Item = TypeVar("Item")


def photo(label: int, seed: int) -> PhotoSource:
    """Stripes one way or the other, of any colours: a random trunk tells little of that."""
    rng = np.random.default_rng(seed)
    dark, light = rng.integers(0, 120, 3), rng.integers(130, 255, 3)
    stripes = np.repeat(np.where((np.arange(48) // 4 % 2 == 0)[:, None], dark, light)[None], 48, 0)
    pixels = stripes if label == 0 else stripes.transpose(1, 0, 2)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return PhotoSource(None, buffer.getvalue())


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return random_backbone("regnety_002", image_size=40)


@pytest.fixture(scope="module")
def sources() -> list[PhotoSource]:
    return [photo(label, seed) for seed, label in enumerate(LABELS)]


@pytest.fixture(scope="module")
def tuned(backbone: Backbone, sources: list[PhotoSource]) -> Backbone:
    return finetune(backbone, sources, LABELS, RECIPE, decode_threads=2)


def separation(backbone: Backbone) -> float:
    """Distance between the kinds' centres, in standard deviations within them, on new photos."""
    fresh = [photo(label, 1000 + seed) for seed, label in enumerate(LABELS)]
    # Not OpenVINO, for which each backbone would be converted.
    embedder = PhotoEmbedder(TorchRuntime(backbone, batch_size=8))
    vectors = np.stack([photo.vector for photo in embedder.embed(fresh)]).astype(float)  # type: ignore[arg-type]
    centres = np.stack([vectors[k == LABELS].mean(0) for k in (0, 1)])
    spread = (vectors - centres[LABELS]).std()
    return float(np.linalg.norm(centres[0] - centres[1]) / spread)


def test_features_tell_the_kinds_apart_better(
    backbone: Backbone, sources: list[PhotoSource]
) -> None:
    tuned = finetune(backbone, sources, LABELS, replace(RECIPE, epochs=16, learning_rate=1e-2))
    assert separation(tuned) > 1.4 * separation(backbone)


def test_what_it_is_and_what_it_says(backbone: Backbone, tuned: Backbone) -> None:
    assert tuned.digest != backbone.digest
    assert (tuned.architecture, tuned.preprocessing) == (
        backbone.architecture,
        backbone.preprocessing,
    )
    assert tuned.licence == backbone.licence
    assert tuned.origin == f"{backbone.origin}; fine-tuned on 24 labelled photos"


def test_the_same_again(backbone: Backbone, sources: list[PhotoSource], tuned: Backbone) -> None:
    assert finetune(backbone, sources, LABELS, RECIPE).digest == tuned.digest
    for changed in (replace(RECIPE, seed=1), replace(RECIPE, degraded=1.0)):
        assert finetune(backbone, sources, LABELS, changed).digest != tuned.digest


def test_unreadable_photos_are_left_out(
    backbone: Backbone,
    sources: list[PhotoSource],
    tuned: Backbone,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = [PhotoSource(None, b""), PhotoSource("file:///no/such.jpg", None)]
    labels = np.append(LABELS, [0, 1])
    watched = Watched()
    with caplog.at_level(logging.WARNING):
        found = finetune(backbone, [*sources, *bad], labels, RECIPE, watch=watched)
    assert "skipping 2 unreadable labelled photos" in caplog.text
    assert found.origin == tuned.origin
    assert watched.loops == [
        ("fine-tuning, checking that photos are readable", "photos", 26, 26),
        *((f"fine-tuning, epoch {epoch} of 3", "steps", 3, 3) for epoch in (1, 2, 3)),
        ("fine-tuning, statistics of whole photos", "batches", 3, 3),
    ]


def test_a_batch_is_never_larger_than_the_photos(
    backbone: Backbone, sources: list[PhotoSource]
) -> None:
    recipe = replace(RECIPE, batch_size=64, epochs=1)
    assert finetune(backbone, sources[:3], LABELS[:3], recipe).digest != backbone.digest


def test_nothing_to_learn_from(backbone: Backbone) -> None:
    with pytest.raises(DataContractError, match="1 of 2 labelled photos are readable"):
        finetune(backbone, [photo(0, 0), PhotoSource(None, b"")], LABELS[:2], RECIPE)


def test_divergence_is_said(backbone: Backbone, sources: list[PhotoSource]) -> None:
    with pytest.raises(SettingsError, match="diverged in epoch"):
        finetune(backbone, sources, LABELS, replace(RECIPE, learning_rate=1e30))


def test_a_photo_that_goes_away_meanwhile(backbone: Backbone, tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(4)]
    for n, path in enumerate(paths):
        data = photo(n % 2, n).data
        assert data is not None
        path.write_bytes(data)

    def then_delete(items: Iterable[Item], label: str, unit: str, total: int) -> Iterator[Item]:
        yield from items
        paths[2].unlink(missing_ok=True)

    sources = [PhotoSource(path.as_uri(), None) for path in paths]
    with pytest.raises(DataContractError, match=r"2\.png: was readable before and no longer is"):
        finetune(backbone, sources, LABELS[:4], RECIPE, watch=then_delete)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 1}])
def test_recipes_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError):
        replace(RECIPE, **wrong)  # type: ignore[arg-type]


def test_each_class_counts_as_much(backbone: Backbone) -> None:
    labels = np.array([0, 0, 0, 1])
    model = seer_model.training.finetuning._classifier(backbone, 2, seed=0)
    learner = seer_model.training.finetuning._Learner(
        model, RECIPE, backbone.preprocessing, labels, 1, torch.Generator()
    )
    weights = learner._class_weights.numpy()
    np.testing.assert_allclose(np.bincount(labels) * weights, [2, 2])


def test_a_number_that_no_photo_has(backbone: Backbone, sources: list[PhotoSource]) -> None:
    recipe = replace(RECIPE, epochs=1)
    assert finetune(backbone, sources, LABELS * 2, recipe).digest != backbone.digest


def test_a_vision_transformer_is_trained_at_its_own_size(sources: list[PhotoSource]) -> None:
    """It has no batch normalisation whose statistics could be estimated."""
    backbone = random_backbone("test_vit3", image_size=160)
    tuned = finetune(backbone, sources[:4], LABELS[:4], replace(RECIPE, epochs=2, crop_size=None))
    assert tuned.digest != backbone.digest
    embedder = PhotoEmbedder(TorchRuntime(tuned, batch_size=2))
    vectors = [photo.vector for photo in embedder.embed(sources[:2])]
    assert [vector.shape for vector in vectors if vector is not None] == [(tuned.width,)] * 2
    with pytest.raises(SettingsError, match="test_vit3: cannot take photos of 32 x 32 pixels"):
        finetune(backbone, sources[:4], LABELS[:4], RECIPE)


# Statistics of batch normalisation.

STEM = "stem.bn"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    # Dark and flat, so unlike the statistics that a fresh trunk starts with.
    return torch.from_numpy(np.random.default_rng(0).integers(0, 40, (12, 40, 40, 3), np.uint8))


def activations(backbone: Backbone, photos: torch.Tensor) -> torch.Tensor:
    kernel = backbone.weights["stem.conv.weight"]
    return functional.conv2d(normalise(photos, backbone.preprocessing), kernel, stride=2, padding=1)


def test_statistics_are_those_of_the_photos(backbone: Backbone, photos: torch.Tensor) -> None:
    parts = photos.split(4)
    estimated = _with_statistics_of(backbone, iter(parts), CPU).weights
    reached = [activations(backbone, part) for part in parts]
    mean = torch.stack([x.mean((0, 2, 3)) for x in reached]).mean(0)
    variance = torch.stack([x.var((0, 2, 3)) for x in reached]).mean(0)
    torch.testing.assert_close(estimated[f"{STEM}.running_mean"], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(estimated[f"{STEM}.running_var"], variance, rtol=1e-4, atol=1e-5)


def test_nothing_but_the_statistics_changes(backbone: Backbone, photos: torch.Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.weights.items()}
    estimated = _with_statistics_of(backbone, [photos], CPU)
    for name, tensor in estimated.weights.items():
        statistic = name.rpartition(".")[2] in ("running_mean", "running_var")
        tracked = name.endswith("num_batches_tracked")
        assert torch.equal(tensor, before[name]) != (statistic or tracked), name
        assert torch.equal(backbone.weights[name], before[name])
    assert estimated.digest != backbone.digest
    assert (estimated.licence, estimated.origin) == (backbone.licence, backbone.origin)


def test_earlier_statistics_do_not_matter(backbone: Backbone, photos: torch.Tensor) -> None:
    once = _with_statistics_of(backbone, [photos], CPU)
    assert _with_statistics_of(once, [photos], CPU).digest == once.digest
