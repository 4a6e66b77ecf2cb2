"""Backbones from timm, without downloads, and addresses of other kinds."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from schemas.errors import SettingsError
from seer_model.backbones.backbone import random_backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.sources import backbone_from_source, timm_backbone
from seer_model.tracking.registry import resolve_backbone
from tests.support.trunks import features, publish_at, run

torch.set_num_threads(1)
PYCLS = "regnety_002.pycls_in1k"


# timm


def test_timm_without_a_tag_is_random_weights() -> None:
    found = backbone_from_source("timm:regnety_002")
    assert found is not None
    assert found.digest == random_backbone("regnety_002").digest


def test_timms_weights_come_with_their_licence_and_preprocessing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    published = timm.create_model(PYCLS, pretrained=False)
    save_file(published.state_dict(), tmp_path / "published.safetensors")
    publish_at(tmp_path / "published.safetensors", monkeypatch)
    backbone = timm_backbone(PYCLS)
    published.reset_classifier(0)
    assert torch.equal(features(backbone), run(published))
    cfg = timm.get_pretrained_cfg(PYCLS)
    assert (backbone.architecture, backbone.licence) == ("regnety_002", cfg.license)
    assert backbone.commercial
    assert backbone.preprocessing == Preprocessing(cfg.input_size[1], cfg.mean, cfg.std)
    assert PYCLS in backbone.origin


def test_licence_and_size_are_those_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """384 pixels and SEER's licence, with a small architecture in place of 32 GF."""
    seer = timm.get_pretrained_cfg("regnety_320.seer_ft_in1k")
    create = timm.create_model
    small = create("regnety_002")
    small.pretrained_cfg = seer.to_dict()
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda *args, pretrained, **options: small if pretrained else create(*args, **options),
    )
    backbone = timm_backbone(PYCLS)
    assert (backbone.licence, backbone.commercial) == ("seer-license", False)
    assert backbone.preprocessing.image_size == 384


def test_a_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_at(tmp_path / "nowhere.safetensors", monkeypatch)
    with pytest.raises(SettingsError, match="cannot download its weights") as caught:
        timm_backbone(PYCLS)
    assert "FileNotFoundError" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_download_that_lacks_a_tensor_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = timm.create_model(PYCLS, pretrained=False).state_dict()
    del state["s1.b1.conv1.conv.weight"]
    save_file(state, tmp_path / "short.safetensors")
    publish_at(tmp_path / "short.safetensors", monkeypatch)
    with pytest.raises(SettingsError, match="cannot download") as caught:
        timm_backbone(PYCLS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("regnety_002.nosuch", "known: regnety_002.pycls_in1k"),
        ("regnety_008.", "unknown weights; known: regnety_008.pycls_in1k"),
        ("resnet18.a1_in1k", "unknown architecture"),
        ("regnety_nosuch.x", "unknown architecture"),
        ("", "unknown architecture"),
    ],
)
def test_an_unknown_name_lists_the_known(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        resolve_backbone(f"timm:{name}")


# Addresses


@pytest.mark.parametrize("uri", ["models:/a/1", "runs:/1/backbone", "folder", "tim:x", "", "timm"])
def test_other_addresses_are_left_to_the_registry(uri: str) -> None:
    assert backbone_from_source(uri) is None


def test_the_message_lists_the_kinds_of_addresses(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"timm:…, vissl:… or zoo:…"):
        resolve_backbone(str(tmp_path / "nowhere"))
