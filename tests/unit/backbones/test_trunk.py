"""Trunks: timm's features; of a RegNetY, also those of earlier stages."""

import pytest
import timm
import torch

from schemas.errors import SettingsError
from seer_model.backbones.constants import STAGES
from seer_model.backbones.trunk import (
    RegNetY,
    blueprint,
    check_photo_size,
    make_trunk,
    published_preprocessing,
    width_of,
)
from tests.support.trunks import run, some_trunk

WIDTHS = [24, 56, 152, 368]


def test_every_regnety_has_timms_weights_and_width() -> None:
    names = timm.list_models("regnety_*")
    assert len(names) > 10
    with torch.device("meta"):
        for name in names:
            ours, theirs = blueprint(name), timm.create_model(name, num_classes=0)
            assert width_of(ours) == theirs.num_features
            assert isinstance(theirs.final_conv, torch.nn.Identity)
            shapes = [{k: w.shape for k, w in m.state_dict().items()} for m in (ours, theirs)]
            assert shapes[0] == shapes[1]


def test_one_stage_gives_timms_features() -> None:
    state = some_trunk()
    ours, theirs = RegNetY("regnety_002"), timm.create_model("regnety_002", num_classes=0)
    ours.load_state_dict(state)
    theirs.load_state_dict(state)
    assert torch.equal(run(ours), run(theirs))


@pytest.mark.parametrize("stages", range(1, STAGES + 1))
def test_features_are_averages_of_the_last_stages(stages: int) -> None:
    state = some_trunk()
    trunk, regnet = RegNetY("regnety_002", stages), timm.create_model("regnety_002", num_classes=0)
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
        RegNetY("regnety_002", stages)


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        trunk = RegNetY("regnety_002", STAGES)
        if checkpointed:
            trunk.checkpoint_blocks()
            assert all(stage.grad_checkpointing for stage in (trunk.s1, trunk.s4))
        trunk(torch.ones(2, 3, 32, 32)).square().sum().backward()
        gradients.append(trunk.stem.conv.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


# Other networks

SIZES = {
    "resnet10t": 64,
    "efficientnet_lite0": 64,
    "mobilenetv3_small_050": 64,
    "convnext_atto": 64,
    "vit_tiny_patch16_224": 224,
}


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_other_networks_give_timms_pooled_features(name: str, size: int) -> None:
    torch.manual_seed(0)
    whole = timm.create_model(name)
    trunk = make_trunk(name)
    prefixes = (f"{whole.pretrained_cfg['classifier']}.",)
    state = {k: w for k, w in whole.state_dict().items() if not k.startswith(prefixes)}
    trunk.load_state_dict(state, strict=True)
    whole.reset_classifier(0)
    check_photo_size(name, size)
    features = run(trunk, size)
    assert torch.equal(features, run(whole, size))
    assert features.shape == (1, width_of(blueprint(name)))


def test_networks_that_cannot_be_trunks_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"take photos of 64 x 64 .*; its own size is 224"):
        check_photo_size("vit_tiny_patch16_224", 64)
    with pytest.raises(SettingsError, match=r"gives \(1, 144, 5120\) .* not one vector"):
        check_photo_size("qwen3_vit_416m_enc", 384)
    with pytest.raises(SettingsError, match=r"3 x 1024 x 768 .* not square"):
        published_preprocessing("vit_base_patch16_sapiens2")
    with pytest.raises(SettingsError, match="features of 4 stages"):
        make_trunk("resnet10t", STAGES)
    with pytest.raises(SettingsError, match="resnet10t: not a RegNetY"):
        RegNetY("resnet10t")


def test_every_name_of_timm_is_taken() -> None:
    assert all(name.isidentifier() for name in timm.list_models())


@pytest.mark.parametrize(
    "name",
    ["hf-hub:timm/resnet10t", "hf_hub:timm/resnet10t", "local-dir:/tmp", "resnet10t.c3_in1k"],
)
def test_names_that_timm_would_follow_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="unknown architecture"):
        make_trunk(name)
