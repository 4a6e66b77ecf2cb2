"""Which checkpoints a folder holds: the newest ones, and whatever else lies there is left alone."""

from pathlib import Path

import pytest

from schemas.errors import SettingsError
from seer_model.training.pretraining.checkpoint import load_latest, save_checkpoint
from tests.support.checkpoint_files import STATE, TENSORS, names


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        save_checkpoint(tmp_path, step, TENSORS, STATE)
    assert names(tmp_path) == ["step-00000015", "step-00000020"]
    save_checkpoint(tmp_path, 25, TENSORS, STATE, keep=1)
    assert names(tmp_path) == ["step-00000025"]


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, step, TENSORS, {})
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.step == 100_000_000


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    for run in range(2):
        save_checkpoint(tmp_path, 7, TENSORS, {"run": run})
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.state == {"run": 1}
    assert names(tmp_path) == ["step-00000007"]


def test_a_death_between_the_two_renames_of_a_replacement_loses_nothing(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 7, TENSORS, {"run": 0}).rename(tmp_path / "step-00000007.old")
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert (loaded.step, loaded.state) == (7, {"run": 0})
    save_checkpoint(tmp_path, 7, TENSORS, {"run": 1})
    assert names(tmp_path) == ["step-00000007"]


def test_later_steps_and_foreign_files_are_left_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 40, TENSORS, {})
    (tmp_path / "step-7").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, step, TENSORS, {}, keep=1)
    assert names(tmp_path) == ["notes.txt", "step-00000030", "step-00000040", "step-7"]


def test_what_a_run_left_that_died_while_saving_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".saving").mkdir()
    (tmp_path / ".saving" / "state.json").write_text("{")
    assert load_latest(tmp_path) is None
    save_checkpoint(tmp_path, 1, TENSORS, {})
    assert names(tmp_path) == ["step-00000001"]


def test_no_checkpoint(tmp_path: Path) -> None:
    assert load_latest(tmp_path) is None
    assert load_latest(tmp_path / "absent") is None


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="file: cannot be read"):
        load_latest(tmp_path / "file")
    with pytest.raises(SettingsError, match="the checkpoint cannot be written"):
        save_checkpoint(tmp_path / "file", 1, TENSORS, {})


@pytest.mark.parametrize(("step", "keep"), [(-1, 2), (1, 0)])
def test_numbers_out_of_range(step: int, keep: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be"):
        save_checkpoint(tmp_path, step, TENSORS, {}, keep=keep)


def test_a_state_that_is_not_json_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_checkpoint(tmp_path, 1, TENSORS, {"set": {1}})
    assert names(tmp_path) == []
