"""What a training makes of its model and of bad photos, what it refuses, and when it gives up."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from seer_model.backbones.backbone import load_backbone, save_backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.runtimes.pytorch import TorchRuntime
from seer_model.backbones.trunk import normalise
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.pixels import prepare_photo
from seer_model.photos.source import PhotoSource
from seer_model.training.pretraining.recipe import Recipe
from seer_model.training.pretraining.trainer import EpochReport, Trainer, TrainingCollapsed
from tests.support.swav_training import (
    LARC,
    TINY,
    changed,
    make_trainer,
    newest,
    photo,
    train,
    write_manifest,
)

torch.set_num_threads(1)


def test_prototypes_stay_while_they_are_frozen(manifest: Path, tmp_path: Path) -> None:
    moved = []
    for frozen in (0.5, 2.0):
        recipe = changed(TINY, frozen_prototypes_epochs=frozen)
        trainer = make_trainer(recipe, manifest, tmp_path / str(frozen))
        before = trainer.model.prototypes.weight.detach().clone()
        trainer.run(lambda _: None)
        after = trainer.model.prototypes.weight.detach()
        moved.append(not torch.allclose(before, after, rtol=0, atol=1e-6))
    assert moved == [True, False]


def test_bfloat16_on_a_cpu(manifest: Path, tmp_path: Path) -> None:
    # oneDNN's bfloat16 gradient of a 3 x 3 kernel over a single pixel is uninitialised memory; a
    # crop of 16 pixels would come down to that.
    recipe = changed(TINY, epochs=1, warmup_epochs=1, bf16=True, small_size=24)
    (report,) = train(recipe, manifest, tmp_path / "checkpoints")
    assert np.isfinite(report.loss)
    kept = newest(tmp_path / "checkpoints").tensors
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32, torch.int64}


def test_unreadable_photos_are_counted(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "manifest", bad=(3, 4, 20))
    reports = train(TINY, manifest, tmp_path / "checkpoints")
    assert [report.unreadable for report in reports] == [3, 6]


def test_the_backbone_embeds_photos(manifest: Path, tmp_path: Path) -> None:
    taken = []
    trainer = make_trainer(TINY, manifest, tmp_path / "checkpoints")

    def take(_: EpochReport) -> None:
        taken.append(trainer.backbone(licence="apache-2.0", origin="a test"))

    trainer.run(take)
    early, late = taken
    # The first is no view of weights that were trained on.
    assert early.digest != late.digest
    for backbone in taken:
        save_backbone(backbone, tmp_path / backbone.digest)
        assert load_backbone(tmp_path / backbone.digest).digest == backbone.digest
    assert (late.architecture, late.width, late.licence) == ("regnety_002", 368, "apache-2.0")
    photos = [photo(n) for n in range(3)]
    sources = [PhotoSource(None, data) for data in (*photos, b"no photo")]
    # Not OpenVINO, for which the backbone would be converted; test_runtime compares the two.
    embedded = list(PhotoEmbedder(TorchRuntime(late, batch_size=4)).embed(sources))
    assert embedded[3].vector is None
    vectors = np.stack([one.vector for one in embedded[:3] if one.vector is not None])
    pixels = np.stack(
        [prepare_photo(data, late.preprocessing.image_size, PhotoLimits()) for data in photos]
    )
    with torch.no_grad():
        inputs = normalise(torch.from_numpy(pixels), late.preprocessing)
        expected = trainer.model.trunk.eval()(inputs)
    # Vectors are stored in float16.
    assert torch.cosine_similarity(torch.from_numpy(vectors).float(), expected).min() > 0.99999
    assert vectors.std(axis=0).max() > 0


def test_a_part_of_a_batch_is_refused(manifest: Path, tmp_path: Path) -> None:
    """The stream and the recipe must be of one batch size."""
    trainer = make_trainer(TINY, manifest, tmp_path / "checkpoints")
    other = Trainer(
        changed(TINY, batch_size=16), trainer._stream, tmp_path / "other", checkpoint_steps=2
    )
    with pytest.raises(
        ValueError, match="8 photos in each of 1 processes do not make a batch of 16"
    ):
        other.run(lambda _: None)


def test_a_queue_holds_whole_batches() -> None:
    for length in (-8, 12):
        with pytest.raises(ValidationError, match="queue_length"):
            changed(TINY, queue_length=length)


# Collapse.


def collapsed(recipe: Recipe, manifest: Path, checkpoints: Path) -> Trainer:
    """A training whose model says the same of every photo."""
    trainer = make_trainer(recipe, manifest, checkpoints)
    with torch.no_grad():
        last = trainer.model.projection[-1]
        last.weight.mul_(1e-4)
        last.bias.fill_(1.0)
    return trainer


@pytest.mark.parametrize("epochs", [1, 3], ids=["in the last epoch", "before the last epoch"])
def test_a_collapse_is_told_and_stays(epochs: int, manifest: Path, tmp_path: Path) -> None:
    recipe = changed(TINY, epochs=epochs, warmup_epochs=0.25, learning_rate=1e-6)
    trainer = collapsed(recipe, manifest, tmp_path)
    reports: list[EpochReport] = []
    with pytest.raises(TrainingCollapsed, match="epoch 0: Features collapsed: their spread"):
        trainer.run(reports.append)
    assert [report.step for report in reports] == [4]
    assert newest(tmp_path).step == 4
    # A scheduler that tries again must not take it for a finished training.
    again = make_trainer(recipe, manifest, tmp_path)
    assert again.resume()
    with pytest.raises(TrainingCollapsed, match="epoch 0: Features collapsed: their spread"):
        again.run(reports.append)
    assert len(reports) == 1


def test_no_alarm_during_the_warm_up(manifest: Path, tmp_path: Path) -> None:
    recipe = changed(TINY, epochs=3, warmup_epochs=2, learning_rate=1e-6)
    reports: list[EpochReport] = []
    with pytest.raises(TrainingCollapsed, match="epoch 2: Features collapsed"):
        collapsed(recipe, manifest, tmp_path).run(reports.append)
    assert [report.collapse.explain() is None for report in reports] == [False] * 3


@pytest.mark.parametrize("recipe", [TINY, changed(TINY, **LARC)], ids=["adamw", "larc"])
def test_what_diverged_is_not_saved(recipe: Recipe, manifest: Path, tmp_path: Path) -> None:
    recipe = changed(recipe, learning_rate=1e30)
    trainer = make_trainer(recipe, manifest, tmp_path, checkpoint_steps=1)
    with pytest.raises(TrainingCollapsed, match=r"the training diverged \(weights are not fini"):
        trainer.run(lambda _: None)
    kept = newest(tmp_path)
    assert 0 < kept.step < trainer.step
    assert all(tensor.isfinite().all() for tensor in kept.tensors.values())
    assert json.loads((kept.path / "state.json").read_text())
