"""Trainings that are repeated, broken off, killed or short of disk end the same to the bit."""

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
from seer_model.pretraining.trainer import EpochReport
from tests.unit.checkpoint_files import names
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
    train,
)

ROOT = Path(__file__).parents[2]

torch.set_num_threads(1)


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
