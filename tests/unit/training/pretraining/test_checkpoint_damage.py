"""A damaged checkpoint is told and passed over for the one before."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seer_model.training.pretraining.checkpoint import load_latest, save_checkpoint
from tests.support.checkpoint_files import STATE, TENSORS, same


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero_the_end(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-8] + bytes(8))


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def not_an_object(path: Path) -> None:
    path.write_text("[]")


FILES = ["checkpoint.json", "state.json", "tensors.safetensors"]
DAMAGES: list[Callable[[Path], None]] = [
    truncate,
    empty,
    zero_the_end,
    flip_a_bit,
    make_a_folder,
    Path.unlink,
    not_an_object,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("file", FILES)
def test_damage_falls_back_to_the_one_before_with_a_warning(
    file: str, damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoint(tmp_path, 1, TENSORS, STATE)
    damaged = save_checkpoint(tmp_path, 2, TENSORS, STATE) / file
    damage(damaged)
    with caplog.at_level(logging.WARNING):
        loaded = load_latest(tmp_path)
    assert loaded is not None
    assert (loaded.step, loaded.state) == (1, STATE)
    assert same(loaded.tensors, TENSORS)
    (record,) = caplog.records
    # A digest that differs may be damaged itself, so both files are named then.
    assert str(damaged.parent) in record.getMessage()
    assert damaged.name in record.getMessage()
    assert "\n" not in record.getMessage()


def test_every_bit_of_the_record_counts(tmp_path: Path) -> None:
    record = save_checkpoint(tmp_path, 2, TENSORS, STATE) / "checkpoint.json"
    good = record.read_bytes()
    content = json.loads(good)
    for position in range(len(good)):
        flipped = bytearray(good)
        flipped[position] ^= 1 << position % 8
        record.write_bytes(flipped)
        try:
            harmless = json.loads(flipped) == content  # White space.
        except ValueError:
            harmless = False
        assert (load_latest(tmp_path) is not None) == harmless


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"format": 2, "step": 1, "sha256": {}},
        {"format": 1, "step": 2, "sha256": {}},
        {"format": 1, "step": 1, "sha256": []},
        {"format": 1, "step": 1, "sha256": {"state.json": None}},
        {"format": 1, "step": 1, "sha256": {}, "more": 1},
    ],
    ids=str,
)
def test_records_that_are_not_of_this_checkpoint(record: dict[str, Any], tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, TENSORS, STATE)
    (path / "checkpoint.json").write_text(json.dumps(record))
    assert load_latest(tmp_path) is None


def test_a_file_in_the_place_of_a_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoint(tmp_path, 1, TENSORS, STATE)
    (tmp_path / "step-00000002").touch()
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.step == 1
    assert "step-00000002" in caplog.text


def test_nothing_intact_is_no_checkpoint_and_two_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        flip_a_bit(save_checkpoint(tmp_path, step, TENSORS, STATE) / "tensors.safetensors")
    assert load_latest(tmp_path) is None
    assert [r.getMessage().count("digest does not match") for r in caplog.records] == [1, 1]
