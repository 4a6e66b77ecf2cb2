"""A pretraining's settings, and the flags they come from."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.pretrain_backbone import main
from jobs.pretraining.settings import PretrainBackbone
from seer_model.training.pretraining.recipe import Recipe

NOT_FLAGS = {"large_crops", "temperature", "queue_from_epoch", "frozen_prototypes_epochs"}


def settings(*flags: str) -> PretrainBackbone:
    return PretrainBackbone(_cli_parse_args=["--manifest", "m", "--output", "o", *flags])  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"epochs": 0}, "epochs"),
        ({"large_crops": 1, "small_crops": 0}, "large_crops\n.*two crops"),
        ({"queue_length": 100}, "queue_length"),
        ({"batch_size": 8, "queue_length": 12}, "whole batches of 8, not 12"),
        ({"epochs": 2}, "5.0 epochs of warm-up in 2 epochs"),
        ({"unknown": 1}, "unknown"),
        ({"epochs": 2, "warmup_epochs": 3}, "warm-up"),
        ({"large_scale": (0.0, 1.0)}, "large_scale"),
        ({"small_scale": (0.5, 0.2)}, "small_scale"),
        ({"small_scale": (0.5, 1.1)}, "small_scale"),
        ({"epsilon": 0.0}, "epsilon"),
    ],
)
def test_numbers_out_of_range_are_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Recipe(**wrong)


def test_a_record_is_json_of_every_setting() -> None:
    record = json.loads(json.dumps(Recipe().to_json()))
    assert record.keys() == set(Recipe.model_fields)
    assert record["large_scale"] == [0.14, 1.0]


def test_without_flags_the_recipe_is_the_default() -> None:
    assert settings().recipe() == Recipe()


def test_flags_shape_the_recipe() -> None:
    found = settings(
        "--large-scale", "0.5,1", "--small-scale", "0.2,0.5", "--epsilon", "0.01",
        "--colour-strength", "0.1", "--projection", "64,32", "--optimiser", "larc",
    ).recipe()  # fmt: skip
    assert found == Recipe(
        large_scale=[0.5, 1.0],
        small_scale=[0.2, 0.5],
        epsilon=0.01,
        colour_strength=0.1,
        projection=[64, 32],
        optimiser="larc",
    )


def test_a_refusal_names_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, line in (
        (("--epochs", "2"), "--warmup-epochs: 5.0 epochs of warm-up in 2 epochs"),
        (("--large-scale", "1"), "--large-scale: List should have at least 2 items"),
        (("--small-scale", "0.5,0.2"), "--small-scale: the range is empty: 0.5 is"),
        (
            ("--teacher", "lite:0", "--prototypes", "9"),
            "--prototypes has no meaning with --teacher",
        ),
        (("--teacher-size", "160"), "--teacher-size has no meaning without --teacher"),
        (("--probe-splits", "train"), "--probe-splits: give two splits, as train,val"),
    ):
        assert main(["--manifest", "m", "--output", "o", *flags]) == 2
        assert line in capsys.readouterr().err


def test_every_setting_but_four_is_a_flag() -> None:
    names = set(Recipe.model_fields)
    assert names - set(PretrainBackbone.model_fields) == NOT_FLAGS


def test_the_command_gives_the_same_recipe() -> None:
    given = settings("--large-scale", "0.5,1", "--epsilon", "0.01")
    words = given.command().split()[3:]
    again = PretrainBackbone(_cli_parse_args=words)  # type: ignore[call-arg]
    assert again.recipe() == given.recipe()
