"""Trunks: timm's features with one stage, preceded by those of earlier stages with more."""

import pytest
import timm
import torch

from seer_model.backbones.constants import STAGES
from seer_model.backbones.trunk import Trunk, blueprint
from tests.support.trunks import run, some_trunk

WIDTHS = [24, 56, 152, 368]


def test_every_regnety_has_timms_weights_and_width() -> None:
    names = timm.list_models("regnety_*")
    assert len(names) > 10
    with torch.device("meta"):
        for name in names:
            ours, theirs = blueprint(name), timm.create_model(name, num_classes=0)
            assert ours.num_features == theirs.num_features
            assert isinstance(theirs.final_conv, torch.nn.Identity)
            shapes = [{k: w.shape for k, w in m.state_dict().items()} for m in (ours, theirs)]
            assert shapes[0] == shapes[1]


def test_one_stage_gives_timms_features() -> None:
    state = some_trunk()
    ours, theirs = Trunk("regnety_002"), timm.create_model("regnety_002", num_classes=0)
    ours.load_state_dict(state)
    theirs.load_state_dict(state)
    assert torch.equal(run(ours), run(theirs))


@pytest.mark.parametrize("stages", range(1, STAGES + 1))
def test_features_are_averages_of_the_last_stages(stages: int) -> None:
    state = some_trunk()
    trunk, regnet = Trunk("regnety_002", stages), timm.create_model("regnety_002", num_classes=0)
    trunk.load_state_dict(state)
    regnet.load_state_dict(state)
    photo = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = regnet.eval().forward_intermediates(photo, intermediates_only=True)
    expected = torch.cat([stage.mean((2, 3)) for stage in maps[-stages:]], 1)
    assert trunk.num_features == sum(WIDTHS[-stages:]) == expected.shape[1]
    torch.testing.assert_close(run(trunk), expected)


@pytest.mark.parametrize("stages", [0, 5, -1])
def test_there_are_four_stages(stages: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 4"):
        Trunk("regnety_002", stages)


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        trunk = Trunk("regnety_002", STAGES)
        if checkpointed:
            trunk.checkpoint_blocks()
            assert all(stage.grad_checkpointing for stage in (trunk.s1, trunk.s4))
        trunk(torch.ones(2, 3, 32, 32)).square().sum().backward()
        gradients.append(trunk.stem.conv.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
