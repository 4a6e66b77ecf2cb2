"""The record of a backbone's input, and normalisation."""

from pathlib import Path

import pytest
import torch

from schemas.errors import BundleError
from seer_model.backbones.preprocessing import Preprocessing, PreprocessingRecord
from seer_model.backbones.trunk import normalise
from seer_model.files import parse_record

DEFAULT = Preprocessing()
RECORD = {"image_size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def parse(record: dict[str, object]) -> Preprocessing:
    found = parse_record(record, PreprocessingRecord, Path("backbone.json"))
    return Preprocessing(**found.model_dump())


# The record


def test_a_record_is_read() -> None:
    assert parse(RECORD) == DEFAULT
    other = {"image_size": 384, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 1.0]}
    assert parse(other) == Preprocessing(384, (0.5, 0.5, 0.5), (0.5, 0.5, 1.0))


def test_whole_numbers_become_floats() -> None:
    found = parse({"image_size": 96, "mean": [0, 0, 0], "std": [1, 1, 1]})
    assert found.std == (1.0, 1.0, 1.0)
    assert type(found.std[0]) is float


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("image_size", value) for value in (0, -224, 224.0, "224", True, None, 100_000, [224])],
        *[("mean", value) for value in (0.5, "abc", None, [0.5, 0.5], [0.5] * 4, [0.5, 0.5, "x"])],
        *[("mean", [0.5, 0.5, value]) for value in (-0.1, 123.675, float("nan"), True, None)],
        *[("std", [0.2, 0.2, value]) for value in (0, 58.395, float("inf"), float("nan"))],
    ],
    ids=str,
)
def test_an_absurd_value_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(BundleError, match=rf"^backbone\.json: (key )?{key}\b.+$"):
        parse({**RECORD, key: value})


@pytest.mark.parametrize("key", RECORD)
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(BundleError, match=f"key {key} is missing"):
        parse({name: value for name, value in RECORD.items() if name != key})


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(BundleError, match="unknown key crop_fraction"):
        parse({**RECORD, "crop_fraction": 0.875})


# Normalisation


def test_normalised_batch_is_channels_last_float() -> None:
    batch = torch.randint(0, 256, (5, 6, 7, 3), dtype=torch.uint8)
    before = batch.clone()
    output = normalise(batch, DEFAULT)
    assert output.shape == (5, 3, 6, 7)
    assert output.dtype == torch.float32
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, before)


def test_normalised_values_are_in_units_of_the_deviation() -> None:
    batch = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    mean, std = torch.tensor(DEFAULT.mean), torch.tensor(DEFAULT.std)
    expected = ((batch / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(normalise(batch, DEFAULT), expected, rtol=1e-5, atol=1e-6)


def test_normalise_takes_an_empty_batch() -> None:
    batch = torch.empty((0, 224, 224, 3), dtype=torch.uint8)
    assert normalise(batch, DEFAULT).shape == (0, 3, 224, 224)


@pytest.mark.parametrize(
    "batch",
    [
        torch.zeros((1, 4, 4, 3)),
        torch.zeros((1, 3, 4, 4), dtype=torch.uint8),
        torch.zeros((4, 4, 3), dtype=torch.uint8),
    ],
    ids=["float", "channels first", "one photo"],
)
def test_normalise_refuses_other_batches(batch: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="uint8 of shape"):
        normalise(batch, DEFAULT)
