"""A training that learns from a teacher."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.errors import SettingsError
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.weights import random_backbone
from seer_model.training.pretraining.distillation import Distiller
from tests.support.swav_training import (
    TINY,
    Interrupted,
    InterruptedStream,
    assert_equal_to_the_bit,
    changed,
    make_trainer,
    newest,
    run_processes,
    train,
    write_manifest,
)

torch.set_num_threads(1)

RECIPE = changed(TINY, epochs=2, degraded=0.5, teacher_size=48, learning_rate=3e-3)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("manifest"))


@pytest.fixture(scope="module")
def teacher() -> Backbone:
    return random_backbone("resnet10t", image_size=64, seed=5)


def test_the_student_comes_to_agree_with_the_teacher(
    manifest: Path, tmp_path: Path, teacher: Backbone
) -> None:
    recipe = changed(RECIPE, epochs=8, degraded=0.0, colour_strength=0.0)
    reports = train(recipe, manifest, tmp_path, teacher=teacher)
    # At 1 the student knows nothing.
    assert reports[0].loss > 0.8
    assert reports[-1].loss < 0.93 * reports[0].loss
    assert [report.collapse for report in reports] == [None] * 8


def test_the_teacher_sees_what_the_student_does(teacher: Backbone, manifest: Path) -> None:
    """Without degradation and in the same size, the two crops are the same pixels."""
    trainer = make_trainer(changed(RECIPE, degraded=0.0), manifest, manifest / "x", teacher=teacher)
    crops = trainer._learner._crops
    crops.colour_strength, crops.grey_probability, crops.blur_probability = 0.0, 0.0, 0.0
    photos = torch.randint(0, 256, (4, 40, 40, 3), dtype=torch.uint8)
    boxes, others = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    pairs = crops.pairs(photos, boxes, others, clean_size=RECIPE.large_size)
    mean, std = (torch.tensor(x) for x in (crops.preprocessing.mean, crops.preprocessing.std))
    for crop, clean in pairs[: RECIPE.large_crops]:
        shown = (crop.permute(0, 2, 3, 1) * std + mean) * 255
        assert torch.allclose(shown, clean.float(), atol=0.51)
    assert [clean.shape[1] for _, clean in pairs] == [RECIPE.large_size] * 3


@pytest.mark.parametrize("teacher_epochs", [None, 2])
def test_it_resumes_to_the_bit(
    manifest: Path, tmp_path: Path, teacher: Backbone, teacher_epochs: int | None
) -> None:
    """The third epoch shows boxes again that the resumed training has not shown to its teacher."""
    recipe = changed(RECIPE, epochs=3, teacher_epochs=teacher_epochs)
    train(recipe, manifest, tmp_path / "whole", teacher=teacher)
    with pytest.raises(Interrupted):
        train(recipe, manifest, tmp_path / "parts", stream=InterruptedStream, teacher=teacher)
    train(recipe, manifest, tmp_path / "parts", resume=True, teacher=teacher)
    assert_equal_to_the_bit(tmp_path / "parts", tmp_path / "whole")


def test_the_teacher_looks_once_at_boxes_shown_again(
    manifest: Path, tmp_path: Path, teacher: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of the second and third epoch are those that the teacher would give again."""
    taught: list[np.ndarray] = []
    teach = Distiller._teach

    def recorded(self: Distiller, crops: Sequence[torch.Tensor]) -> np.ndarray:
        taught.append(teach(self, crops))
        return taught[-1]

    monkeypatch.setattr(Distiller, "_teach", recorded)
    recipe = changed(RECIPE, epochs=3, teacher_epochs=1)
    reports = train(recipe, manifest, tmp_path / "remembering", teacher=teacher)
    assert len(taught) == reports[0].step
    forgetful = property(lambda _: {}, lambda *_: None)
    monkeypatch.setattr(Distiller, "_remembered", forgetful, raising=False)
    train(recipe, manifest, tmp_path / "asking", teacher=teacher)
    assert_equal_to_the_bit(tmp_path / "remembering", tmp_path / "asking")
    first, *again = np.split(np.stack(taught[reports[0].step :]), 3)
    for features in again:
        np.testing.assert_array_equal(features, first)


def test_it_goes_on_only_with_the_same_teacher(
    manifest: Path, tmp_path: Path, teacher: Backbone
) -> None:
    make_trainer(RECIPE, manifest, tmp_path, teacher=teacher).save()
    other = random_backbone("resnet10t", image_size=64, seed=6)
    for wrong in (None, other):
        with pytest.raises(SettingsError, match="or teacher"):
            make_trainer(RECIPE, manifest, tmp_path, teacher=wrong).resume()


def half(rank: int, folder: Path, manifest: Path) -> None:
    teacher = random_backbone("resnet10t", image_size=64, seed=5)
    train(changed(RECIPE, learning_rate=1e-4), manifest, folder / "two", teacher=teacher)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(
    manifest: Path, tmp_path: Path, teacher: Backbone
) -> None:
    train(changed(RECIPE, learning_rate=1e-4), manifest, tmp_path / "one", teacher=teacher)
    run_processes(2, half, tmp_path, manifest)
    one, two = (newest(tmp_path / name).tensors for name in ("one", "two"))
    for name, tensor in one.items():
        if name.startswith("model."):
            assert torch.allclose(two[name].float(), tensor.float(), rtol=0.02, atol=2e-3), name
