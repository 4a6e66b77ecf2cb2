"""Backbones from timm, and addresses that are none; nothing is downloaded."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from schemas.errors import SettingsError
from seer_model.backbone import random_backbone
from seer_model.backbone_sources import backbone_from_source, timm_backbone
from seer_model.preprocessing import Preprocessing
from seer_model.registry import resolve_backbone
from tests.unit.trunks import features, run

torch.set_num_threads(1)
PYCLS = "regnety_002.pycls_in1k"


# timm


def test_timm_without_a_tag_is_random_weights() -> None:
    found = backbone_from_source("timm:regnety_002")
    assert found is not None
    assert found.digest == random_backbone("regnety_002").digest


def test_pretrained_weights_of_timm_with_their_licence_and_preprocessing(tmp_path: Path) -> None:
    torch.manual_seed(3)
    published = timm.create_model(PYCLS, pretrained=False)
    save_file(published.state_dict(), tmp_path / "published.safetensors")
    backbone = timm_backbone(PYCLS, weights_file=tmp_path / "published.safetensors")
    published.reset_classifier(0)
    assert torch.equal(features(backbone), run(published))
    cfg = timm.get_pretrained_cfg(PYCLS)
    assert (backbone.architecture, backbone.licence) == ("regnety_002", cfg.license)
    assert backbone.commercial
    assert backbone.preprocessing == Preprocessing(cfg.input_size[1], cfg.mean, cfg.std)
    assert PYCLS in backbone.origin


def test_licence_and_size_are_those_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 384 pixels and SEER's licence, in a small architecture in the stead of 32 GF."""
    seer = timm.get_pretrained_cfg("regnety_320.seer_ft_in1k")
    small = timm.create_model("regnety_002", pretrained=False)
    small.pretrained_cfg = seer.to_dict()
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: small)
    backbone = timm_backbone("regnety_320.seer_ft_in1k")
    assert (backbone.licence, backbone.commercial) == ("seer-license", False)
    assert backbone.preprocessing.image_size == 384


def test_a_failed_download_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="its weights cannot be had") as caught:
        timm_backbone(PYCLS, weights_file=tmp_path / "nowhere.safetensors")
    assert "FileNotFoundError" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_download_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    state = timm.create_model(PYCLS, pretrained=False).state_dict()
    del state["s1.b1.conv1.conv.weight"]
    save_file(state, tmp_path / "short.safetensors")
    with pytest.raises(SettingsError, match="cannot be had") as caught:
        timm_backbone(PYCLS, weights_file=tmp_path / "short.safetensors")
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
def test_unknown_names_of_timm_list_the_known(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        resolve_backbone(f"timm:{name}")


# Addresses


@pytest.mark.parametrize("uri", ["models:/a/1", "runs:/1/backbone", "folder", "tim:x", "", "timm"])
def test_other_addresses_are_left_to_the_registry(uri: str) -> None:
    assert backbone_from_source(uri) is None


def test_what_can_be_given_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"timm:…, vissl:… or zoo:…"):
        resolve_backbone(str(tmp_path / "nowhere"))
