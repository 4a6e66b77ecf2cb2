import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.errors import SettingsError
from seer_model.backbone import load_backbone, save_backbone
from seer_model.embedder import PhotoEmbedder
from seer_model.photo_source import PhotoSource
from seer_model.photos import PhotoLimits
from seer_model.preprocessing import normalise, prepare_photo
from seer_model.pretraining.recipe import Recipe
from seer_model.pretraining.trainer import EpochReport, Trainer, TrainingCollapsed
from tests.unit.swav_training import (
    LARC,
    QUEUE,
    RESUMED,
    STEPS,
    TINY,
    Interrupted,
    InterruptedStream,
    assert_equal_to_the_bit,
    make_trainer,
    newest,
    photo,
    train,
    write_manifest,
)

ROOT = Path(__file__).parents[2]

torch.set_num_threads(1)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("trainer") / "manifest")


@pytest.fixture(scope="module")
def finished(manifest: Path) -> tuple[Path, list[EpochReport]]:
    """Checkpoints and reports of an uninterrupted training."""
    folder = manifest.parent / "finished"
    return folder, train(TINY, manifest, folder)


@pytest.fixture
def copied(finished: tuple[Path, list[EpochReport]], tmp_path: Path) -> Path:
    """A copy of its checkpoints, of steps 6 and 8."""
    folder: Path = shutil.copytree(finished[0], tmp_path / "copied")
    assert names(folder) == ["step-00000006", "step-00000008"]
    return folder


# A training, and what it tells.


def test_every_epoch_is_reported(finished: tuple[Path, list[EpochReport]], manifest: Path) -> None:
    folder, reports = finished
    assert newest(folder).step == STEPS
    assert [(report.epoch, report.step) for report in reports] == [(0, 4), (1, 8)]
    for report in reports:
        assert 0 < report.loss < 2 * np.log(TINY.prototypes)
        assert report.photos_per_second > 0
        assert report.unreadable == 0
        assert report.collapse.photos == 32
    # All of it was warm-up, whose last step is one short of the full rate.
    assert reports[-1].learning_rate == pytest.approx(TINY.learning_rate * 7 / 8)


def test_the_same_training_twice_is_the_same_to_the_bit(
    finished: tuple[Path, list[EpochReport]], manifest: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1234)  # The caller's random numbers have no part in it, and go on.
    before = torch.get_rng_state()
    train(TINY, manifest, tmp_path / "again", checkpoint_steps=500)
    assert torch.get_rng_state().equal(before)
    assert names(tmp_path / "again") == ["step-00000004", "step-00000008"]
    assert_equal_to_the_bit(tmp_path / "again", finished[0])


def test_another_seed_is_another_training(
    finished: tuple[Path, list[EpochReport]], manifest: Path, tmp_path: Path
) -> None:
    reports = train(replace(TINY, seed=1, epochs=1, warmup_epochs=1), manifest, tmp_path / "other")
    assert reports[0].loss != finished[1][0].loss


def test_prototypes_stay_while_they_are_frozen(manifest: Path, tmp_path: Path) -> None:
    moved = []
    for frozen in (0.5, 2.0):
        recipe = replace(TINY, frozen_prototypes_epochs=frozen)
        trainer = make_trainer(recipe, manifest, tmp_path / str(frozen))
        before = trainer.model.prototypes.weight.detach().clone()
        trainer.run(lambda _: None)
        after = trainer.model.prototypes.weight.detach()
        moved.append(not torch.allclose(before, after, rtol=0, atol=1e-6))
    assert moved == [True, False]


def test_bfloat16_on_a_cpu(manifest: Path, tmp_path: Path) -> None:
    # oneDNN's bfloat16 gradient of a 3 x 3 kernel over a single pixel is uninitialised memory; a
    # crop of 16 pixels would come down to that.
    recipe = replace(TINY, epochs=1, warmup_epochs=1, bf16=True, small_size=24)
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
    embedded = list(PhotoEmbedder(late, batch_size=4).embed(sources))
    assert embedded[3].vector is None
    vectors = np.stack([one.vector for one in embedded[:3] if one.vector is not None])
    pixels = np.stack([prepare_photo(data, late.preprocessing, PhotoLimits()) for data in photos])
    with torch.no_grad():
        inputs = normalise(torch.from_numpy(pixels), late.preprocessing)
        expected = trainer.model.trunk.eval()(inputs)
    np.testing.assert_allclose(vectors, expected.numpy(), rtol=2e-3, atol=2e-3)
    assert vectors.std(axis=0).max() > 0


# To stop and to go on.


def test_resuming_an_empty_folder_is_a_start(manifest: Path, tmp_path: Path) -> None:
    trainer = make_trainer(TINY, manifest, tmp_path / "none")
    assert not trainer.resume()
    assert trainer.step == 0
    trainer.save()
    trainer.run(lambda _: None)
    assert trainer.step == STEPS


def test_a_finished_training_has_nothing_left_to_do(copied: Path, manifest: Path) -> None:
    assert train(TINY, manifest, copied, resume=True) == []
    assert names(copied) == ["step-00000006", "step-00000008"]


def test_a_new_start_does_not_mix_with_an_earlier_runs_checkpoints(
    copied: Path, manifest: Path
) -> None:
    with pytest.raises(SettingsError, match="holds checkpoints of an earlier run; --resume or ano"):
        train(TINY, manifest, copied)
    shutil.rmtree(copied / "step-00000008")
    (copied / "step-00000006" / "checkpoint.json").write_text("damaged")
    with pytest.raises(SettingsError, match="holds checkpoints of an earlier run"):
        train(TINY, manifest, copied)


def test_another_recipe_or_manifest_is_refused(copied: Path, manifest: Path) -> None:
    for recipe in (replace(TINY, learning_rate=2e-3), replace(TINY, epochs=3)):
        with pytest.raises(SettingsError, match="step-00000008: was made with another recipe, man"):
            make_trainer(recipe, manifest, copied).resume()
    shutil.copytree(manifest, copied / "more")
    shutil.copy(copied / "more" / "part-0.parquet", copied / "more" / "part-1.parquet")
    with pytest.raises(SettingsError, match="another recipe, manifest or number of processes"):
        make_trainer(TINY, copied / "more", copied).resume()


def damage_json(checkpoint: Path) -> None:
    (checkpoint / "state.json").write_text("{}")


def damage_tensors(checkpoint: Path) -> None:
    path = checkpoint / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def cut_off(checkpoint: Path) -> None:
    os.truncate(checkpoint / "tensors.safetensors", 10_000)


@pytest.mark.parametrize("damage", [damage_json, damage_tensors, cut_off])
def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(
    damage: Callable[[Path], None],
    finished: tuple[Path, list[EpochReport]],
    copied: Path,
    manifest: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    damage(copied / "step-00000008")
    with caplog.at_level(logging.INFO):
        reports = train(TINY, manifest, copied, resume=True)
    assert "damaged checkpoint" in caplog.text
    assert f"resumed at step 6 from {copied / 'step-00000006'}" in caplog.text
    assert [report.collapse.photos for report in reports] == [16]
    assert_equal_to_the_bit(copied, finished[0])


def test_nothing_but_damage_is_not_a_new_start(copied: Path, manifest: Path) -> None:
    for checkpoint in copied.iterdir():
        damage_tensors(checkpoint)
    trainer = make_trainer(TINY, manifest, copied)
    with pytest.raises(SettingsError, match="every checkpoint is damaged; restore one, or start"):
        trainer.resume()


def test_a_part_of_a_batch_is_refused(manifest: Path, tmp_path: Path) -> None:
    """The stream and the recipe must be of one batch size."""
    trainer = make_trainer(TINY, manifest, tmp_path / "checkpoints")
    other = Trainer(replace(TINY, batch_size=16), trainer._stream, tmp_path / "other")
    with pytest.raises(ValueError, match="8 photos are not the part"):
        other.run(lambda _: None)


def test_a_queue_holds_whole_batches() -> None:
    for length in (-8, 12):
        with pytest.raises(SettingsError, match=f"whole batches of 8, not {length}"):
            replace(TINY, queue_length=length)


@pytest.mark.parametrize(
    "changes", [QUEUE, LARC, LARC | QUEUE, QUEUE | {"queue_from_epoch": 1}], ids=str
)
def test_a_training_breaks_off_and_goes_on(
    changes: dict[str, object], manifest: Path, tmp_path: Path
) -> None:
    recipe = replace(TINY, **changes)
    expected = train(recipe, manifest, tmp_path / "expected")
    with pytest.raises(Interrupted):
        train(recipe, manifest, tmp_path / "broken", stream=InterruptedStream, checkpoint_steps=1)
    assert newest(tmp_path / "broken").step == 7
    train(recipe, manifest, tmp_path / "broken", resume=True)
    assert_equal_to_the_bit(tmp_path / "broken", tmp_path / "expected")
    assert all(np.isfinite(report.loss) for report in expected)


# Killed, or out of disk: in processes of their own.


@pytest.fixture(scope="module")
def died(manifest: Path) -> Path:
    """Where processes have left their checkpoints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.swav_training", str(manifest.parent)],
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "error"},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    (manifest.parent / "told").write_text(done.stdout)
    return manifest.parent


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMED)
def test_a_killed_training_goes_on_as_if_it_had_never_stopped(
    name: str, died: Path, manifest: Path, tmp_path: Path
) -> None:
    killed = died / f"{name}, killed"
    assert newest(killed).step == 6
    (report,) = train(RESUMED[name], manifest, killed, resume=True)
    assert report.collapse.photos == 16
    expected = train(RESUMED[name], manifest, tmp_path / "expected")
    assert len(expected) == 2
    assert_equal_to_the_bit(killed, tmp_path / "expected")


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_spares_earlier_checkpoints(
    died: Path, finished: tuple[Path, list[EpochReport]], manifest: Path
) -> None:
    folder = died / "full disk"
    (line,) = (died / "told").read_text().splitlines()
    assert line.startswith(f"{folder / 'step-00000006'}: the checkpoint cannot be written (")
    assert line.endswith("those before it are untouched")
    assert names(folder) == ["step-00000002", "step-00000004"]
    train(TINY, manifest, folder, resume=True)
    assert_equal_to_the_bit(folder, finished[0])


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
    recipe = replace(TINY, epochs=epochs, warmup_epochs=0.25, learning_rate=1e-6)
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
    recipe = replace(TINY, epochs=3, warmup_epochs=2, learning_rate=1e-6)
    reports: list[EpochReport] = []
    with pytest.raises(TrainingCollapsed, match="epoch 2: Features collapsed"):
        collapsed(recipe, manifest, tmp_path).run(reports.append)
    assert [report.collapse.explain() is None for report in reports] == [False] * 3


@pytest.mark.parametrize("recipe", [TINY, replace(TINY, **LARC)], ids=["adamw", "larc"])
def test_what_diverged_is_not_saved(recipe: Recipe, manifest: Path, tmp_path: Path) -> None:
    recipe = replace(recipe, learning_rate=1e30)
    trainer = make_trainer(recipe, manifest, tmp_path, checkpoint_steps=1)
    with pytest.raises(TrainingCollapsed, match="the training diverged: its weights are not fini"):
        trainer.run(lambda _: None)
    kept = newest(tmp_path)
    assert 0 < kept.step < trainer.step
    assert all(tensor.isfinite().all() for tensor in kept.tensors.values())
    assert json.loads((kept.path / "state.json").read_text())
