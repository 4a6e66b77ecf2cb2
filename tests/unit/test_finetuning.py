"""Fine-tuning on three dozen drawn photos of two colours."""

import io
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import seer_model.finetuning
from schemas.errors import DataContractError, SettingsError
from seer_model.backbone import Backbone, random_backbone
from seer_model.embedder import PhotoEmbedder
from seer_model.finetuning import FinetuneRecipe, finetune
from seer_model.photo_source import PhotoSource

RECIPE = FinetuneRecipe(epochs=3, batch_size=8, crop_size=32, bf16=False, learning_rate=2e-3)
LABELS = np.arange(24) % 2


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
    vectors = np.stack([v.astype(np.float64) for v, _ in PhotoEmbedder.open(backbone).embed(fresh)])  # type: ignore[union-attr]
    centres = np.stack([vectors[k == LABELS].mean(0) for k in (0, 1)])
    spread = (vectors - centres[LABELS]).std()
    return float(np.linalg.norm(centres[0] - centres[1]) / spread)


def test_features_tell_the_kinds_apart_better(
    backbone: Backbone, sources: list[PhotoSource]
) -> None:
    tuned = finetune(backbone, sources, LABELS, replace(RECIPE, epochs=30, learning_rate=5e-3))
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
    other = finetune(backbone, sources, LABELS, replace(RECIPE, seed=1))
    assert other.digest != tuned.digest


def test_unreadable_photos_are_left_out(
    backbone: Backbone,
    sources: list[PhotoSource],
    tuned: Backbone,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = [PhotoSource(None, b""), PhotoSource("file:///no/such.jpg", None)]
    with caplog.at_level(logging.WARNING):
        found = finetune(backbone, [*sources, *bad], np.append(LABELS, [0, 1]), RECIPE)
    assert "2 labelled photos cannot be read" in caplog.text
    assert found.origin == tuned.origin


def test_a_batch_is_never_larger_than_the_photos(
    backbone: Backbone, sources: list[PhotoSource]
) -> None:
    recipe = replace(RECIPE, batch_size=64, epochs=1)
    assert finetune(backbone, sources[:3], LABELS[:3], recipe).digest != backbone.digest


def test_nothing_to_learn_from(backbone: Backbone) -> None:
    with pytest.raises(DataContractError, match="1 labelled photos can be read"):
        finetune(backbone, [photo(0, 0), PhotoSource(None, b"")], LABELS[:2], RECIPE)


def test_divergence_is_said(backbone: Backbone, sources: list[PhotoSource]) -> None:
    with pytest.raises(SettingsError, match="diverged in epoch"):
        finetune(backbone, sources, LABELS, replace(RECIPE, learning_rate=1e30))


def test_a_photo_that_goes_away_meanwhile(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(4)]
    for n, path in enumerate(paths):
        data = photo(n % 2, n).data
        assert data is not None
        path.write_bytes(data)
    usable = seer_model.finetuning._Photos.usable

    def then_delete(photos: seer_model.finetuning._Photos) -> npt.NDArray[np.int64]:
        found = usable(photos)
        paths[2].unlink()
        return found

    monkeypatch.setattr(seer_model.finetuning._Photos, "usable", then_delete)
    sources = [PhotoSource(path.as_uri(), None) for path in paths]
    with pytest.raises(DataContractError, match=r"2\.png: could be read, and no longer can"):
        finetune(backbone, sources, LABELS[:4], RECIPE)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 1}])
def test_recipes_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError):
        replace(RECIPE, **wrong)  # type: ignore[arg-type]


def test_each_class_counts_as_much(backbone: Backbone) -> None:
    labels = np.array([0, 0, 0, 1])
    model = seer_model.finetuning._classifier(backbone, 2, seed=0)
    learner = seer_model.finetuning._Learner(
        model, RECIPE, backbone.preprocessing, labels, 1, torch.Generator()
    )
    weights = learner._weights.numpy()
    np.testing.assert_allclose(np.bincount(labels) * weights, [2, 2])


def test_a_number_that_no_photo_has(backbone: Backbone, sources: list[PhotoSource]) -> None:
    recipe = replace(RECIPE, epochs=1)
    assert finetune(backbone, sources, LABELS * 2, recipe).digest != backbone.digest
