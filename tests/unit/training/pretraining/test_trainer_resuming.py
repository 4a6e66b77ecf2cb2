"""Trainings that are repeated, broken off, killed or short of disk end the same to the bit."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.errors import SettingsError
from seer_model.training.pretraining.checkpoint import (
    flatten_state,
    save_checkpoint,
    unflatten_state,
)
from seer_model.training.pretraining.trainer import EpochReport
from tests.support.checkpoint_files import names
from tests.support.swav_training import (
    LARC,
    QUEUE,
    STEPS,
    TINY,
    Interrupted,
    InterruptedStream,
    assert_equal_to_the_bit,
    changed,
    die,
    make_trainer,
    newest,
    run_process,
    train,
)

torch.set_num_threads(1)

LATE = changed(TINY, **LARC, **QUEUE | {"queue_from_epoch": 1})


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
    reports = train(changed(TINY, seed=1, epochs=1, warmup_epochs=1), manifest, tmp_path / "other")
    assert reports[0].loss != finished[1][0].loss


# To stop and to go on.


def test_resuming_an_empty_folder_is_a_start(manifest: Path, tmp_path: Path) -> None:
    recipe = changed(TINY, epochs=1, warmup_epochs=1)
    trainer = make_trainer(recipe, manifest, tmp_path / "none")
    assert not trainer.resume()
    assert trainer.step == 0
    trainer.save()
    trainer.run(lambda _: None)
    assert trainer.step == STEPS / 2


def test_a_finished_training_has_nothing_left_to_do(copied: Path, manifest: Path) -> None:
    assert train(TINY, manifest, copied, resume=True) == []
    assert names(copied) == ["step-00000006", "step-00000008"]


def test_a_new_start_does_not_mix_with_an_earlier_runs_checkpoints(
    copied: Path, manifest: Path
) -> None:
    with pytest.raises(
        SettingsError, match="holds checkpoints of an earlier run; give --resume or"
    ):
        train(TINY, manifest, copied)
    shutil.rmtree(copied / "step-00000008")
    (copied / "step-00000006" / "checkpoint.json").write_text("damaged")
    with pytest.raises(SettingsError, match="holds checkpoints of an earlier run"):
        train(TINY, manifest, copied)


def test_another_recipe_or_manifest_is_refused(copied: Path, manifest: Path) -> None:
    for recipe in (changed(TINY, learning_rate=2e-3), changed(TINY, epochs=3)):
        with pytest.raises(SettingsError, match="step-00000008: was made with another recipe, man"):
            make_trainer(recipe, manifest, copied).resume()
    shutil.copytree(manifest, copied / "more")
    shutil.copy(copied / "more" / "part-0.parquet", copied / "more" / "part-1.parquet")
    with pytest.raises(SettingsError, match="another recipe, manifest, number of processes"):
        make_trainer(TINY, copied / "more", copied).resume()


def damage_tensors(checkpoint: Path) -> None:
    path = checkpoint / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(
    finished: tuple[Path, list[EpochReport]],
    copied: Path,
    manifest: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Any other damage is found as well, see test_checkpoint_damage."""
    damage_tensors(copied / "step-00000008")
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


@pytest.fixture(scope="module")
def broken(manifest: Path) -> Path:
    """Checkpoints of a training with LARC and a late queue that broke off."""
    folder = manifest.parent / "broken"
    with pytest.raises(Interrupted):
        train(LATE, manifest, folder, stream=InterruptedStream, checkpoint_steps=7)
    assert newest(folder).step == 7
    return folder


@pytest.fixture(scope="module")
def unbroken(manifest: Path) -> Path:
    folder = manifest.parent / "unbroken"
    assert all(np.isfinite(report.loss) for report in train(LATE, manifest, folder))
    return folder


def test_a_training_breaks_off_and_goes_on(
    broken: Path, unbroken: Path, manifest: Path, tmp_path: Path
) -> None:
    folder: Path = shutil.copytree(broken, tmp_path / "copied")
    train(LATE, manifest, folder, resume=True)
    assert_equal_to_the_bit(folder, unbroken)


def test_checkpoints_of_another_optimisers_settings_resume_the_same(
    broken: Path, unbroken: Path, manifest: Path, tmp_path: Path
) -> None:
    """Earlier versions had a LARS of their own, whose groups had other settings."""
    checkpoint = newest(broken)
    state = unflatten_state(checkpoint.tensors, checkpoint.state)
    for group in state["optimiser"]["param_groups"]:
        for name in ("always_adapt", "eps", "trust_clip", "trust_coeff"):
            del group[name]
        group |= {"maximize": False, "differentiable": False, "fused": None}
    save_checkpoint(tmp_path, checkpoint.step, *flatten_state(state))
    train(LATE, manifest, tmp_path, resume=True)
    assert_equal_to_the_bit(tmp_path, unbroken)


# Killed, or out of disk: in processes of their own.


@pytest.fixture(scope="module")
def died(manifest: Path) -> Path:
    """Where processes have left their checkpoints."""
    told, exit_code = run_process(die, manifest.parent)
    assert exit_code == 0, told
    (manifest.parent / "told").write_text(told)
    return manifest.parent


@pytest.mark.slow
def test_a_killed_training_goes_on_as_if_it_had_never_stopped(
    died: Path, finished: tuple[Path, list[EpochReport]], manifest: Path
) -> None:
    killed = died / "killed"
    assert newest(killed).step == 6
    (report,) = train(TINY, manifest, killed, resume=True)
    assert report.collapse.photos == 16
    assert_equal_to_the_bit(killed, finished[0])


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_spares_earlier_checkpoints(
    died: Path, finished: tuple[Path, list[EpochReport]], manifest: Path
) -> None:
    folder = died / "full disk"
    (line,) = (died / "told").read_text().splitlines()
    assert line.startswith(f"{folder / 'step-00000006'}: the checkpoint cannot be written (")
    assert line.endswith("earlier ones are untouched")
    assert names(folder) == ["step-00000002", "step-00000004"]
    train(TINY, manifest, folder, resume=True)
    assert_equal_to_the_bit(folder, finished[0])
