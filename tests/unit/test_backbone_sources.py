"""Backbones from timm, from published SEER checkpoints and from the zoo; nothing is downloaded."""

import gc
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models.regnet import _filter_fn

from schemas.errors import BundleError, SettingsError
from seer_model.backbone import (
    Backbone,
    build_trunk,
    load_backbone,
    make_backbone,
    random_backbone,
    save_backbone,
)
from seer_model.backbone_sources import backbone_from_source, timm_backbone
from seer_model.preprocessing import Preprocessing
from seer_model.registry import resolve_backbone
from seer_model.vissl import load_vissl
from seer_model.zoo import load_zoo, names

torch.set_num_threads(1)
State = dict[str, torch.Tensor]
PYCLS = "regnety_002.pycls_in1k"


def features(backbone: Backbone, size: int = 32) -> torch.Tensor:
    return run(backbone.build(), size)


def run(trunk: torch.nn.Module, size: int = 32) -> torch.Tensor:
    with torch.inference_mode():
        output: torch.Tensor = trunk.eval()(
            torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        )
    assert output.std() > 0
    return output


def some_trunk(architecture: str = "regnety_002") -> State:
    """A trunk's state with statistics, affine parameters and counters that differ."""
    torch.manual_seed(1)
    state: State = build_trunk(architecture).state_dict()
    for name, tensor in state.items():
        if name.endswith(("bn.weight", "running_var")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("bn.bias", "running_mean", "fc1.bias", "fc2.bias")):
            tensor.uniform_(-0.1, 0.1)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(244_000)
    return state


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


# VISSL


def published_seer(trunk: State) -> dict[str, Any]:
    """A trunk as VISSL saves it, with what lies beside it in a published checkpoint."""
    layers = {
        "conv1.conv": "f.a.0",
        "conv1.bn": "f.a.1",
        "conv2.conv": "f.b.0",
        "conv2.bn": "f.b.1",
        "se.fc1": "f.se.excitation.0",
        "se.fc2": "f.se.excitation.2",
        "conv3.conv": "f.c",
        "conv3.bn": "f.final_bn",
        "downsample.conv": "proj",
        "downsample.bn": "bn",
    }
    saved: State = {}
    for name, tensor in trunk.items():
        layer, _, kind = name.rpartition(".")
        if layer in ("stem.conv", "stem.bn"):
            saved[f"_feature_blocks.conv1.stem.{int(layer == 'stem.bn')}.{kind}"] = tensor
            continue
        stage, block, part = int(layer[1]), int(layer.split(".")[1][1:]), layer.split(".", 2)[2]
        where = f"_feature_blocks.res{stage + 1}.block{stage}-{block - 1}"
        saved[f"{where}.{layers[part]}.{kind}"] = tensor
    heads = {"0.projection_head.0.weight": torch.ones(2, 2), "0.prototypes0.weight": torch.ones(3)}
    return {
        "phase_idx": 0,
        "iteration": 244_000,
        "loss": 5.5,
        "iteration_num": 0,
        "train_phase_idx": 0,
        "classy_state_dict": {
            "train": True,
            "base_model": {"model": {"trunk": saved, "heads": heads}, "meta": {}},
            "meters": [],
            "optimizer": {"optim": {"state": {0: {"momentum_buffer": torch.ones(2)}}}},
        },
    }


def trunk_of(checkpoint: dict[str, Any]) -> State:
    trunk: State = checkpoint["classy_state_dict"]["base_model"]["model"]["trunk"]
    return trunk


def by_timm(checkpoint: Mapping[str, Any], architecture: str) -> torch.nn.Module:
    """The trunk as timm converts it."""
    module = build_trunk(architecture)
    module.load_state_dict(_filter_fn(dict(checkpoint)), strict=True)
    return module


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("architecture", ["regnety_002", "regnety_008_tv"])
def test_a_published_checkpoint_is_what_timm_makes_of_it(
    tmp_path: Path, architecture: str, zipped: bool
) -> None:
    path = tmp_path / "seer.torch"
    checkpoint = published_seer(some_trunk(architecture))
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    backbone = resolve_backbone(f"vissl:{path}")
    timms = by_timm(checkpoint, architecture)
    assert backbone.architecture == architecture
    assert torch.equal(features(backbone), run(timms))
    assert backbone.weights.keys() == timms.state_dict().keys()
    assert all(torch.equal(backbone.weights[k], w) for k, w in timms.state_dict().items())
    assert (backbone.licence, backbone.commercial) == ("seer-license", False)
    assert "seer.torch" in backbone.origin
    assert str(tmp_path) not in backbone.origin
    path.unlink()
    assert torch.equal(features(backbone), run(timms))


def test_counters_may_be_missing(tmp_path: Path) -> None:
    checkpoint = published_seer(some_trunk())
    whole = run(by_timm(checkpoint, "regnety_002"))
    trunk = trunk_of(checkpoint)
    for name in [name for name in trunk if name.endswith("num_batches_tracked")]:
        del trunk[name]
    torch.save(checkpoint, tmp_path / "seer.torch")
    assert torch.equal(features(load_vissl(tmp_path / "seer.torch")), whole)


FIRST = "_feature_blocks.res2.block1-0.f.a.0.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda t: t.pop(FIRST), f"not quite regnety_002: missing {FIRST}$", id="missing"
        ),
        pytest.param(
            lambda t: [t.pop(name) for name in list(t) if "f.se." in name],
            "missing .*, .*, .* and 49 more$",
            id="many missing",
        ),
        pytest.param(
            lambda t: t.update({"_feature_blocks.extra": torch.ones(1)}),
            "regnety_002: unexpected _feature_blocks.extra",
            id="unexpected",
        ),
        pytest.param(
            lambda t: t.update({FIRST: torch.ones(24, 31, 1, 1)}),
            rf"misshapen {FIRST} \[24, 31, 1, 1\], not \[24, 32, 1, 1\]",
            id="misshapen",
        ),
        pytest.param(
            lambda t: t.update({FIRST: torch.full((24, 32, 1, 1), torch.nan)}),
            f"tensor {FIRST} holds numbers that are not finite",
            id="not finite",
        ),
        pytest.param(
            lambda t: t.update({"head.weight": torch.ones(1)}), "'head.weight'", id="not a trunk's"
        ),
        pytest.param(lambda t: t.update({FIRST: 3}), f"'{FIRST}'", id="no tensor"),
        pytest.param(
            lambda t: t.update({"_feature_blocks.conv1.stem.0.weight": torch.ones(8, 3, 3, 3)}),
            r"no RegNetY has a stem of 8, stages of \[24, 56, 152, 368\] channels and \[1, 1, 4, 7",
            id="unknown architecture",
        ),
        pytest.param(lambda t: t.clear(), r"no RegNetY has a stem of 0", id="empty"),
    ],
)
def test_other_tensors_are_refused_by_name(
    tmp_path: Path, change: Callable[[State], object], message: str
) -> None:
    checkpoint = published_seer(some_trunk())
    change(trunk_of(checkpoint))
    torch.save(checkpoint, tmp_path / "seer.torch")
    with pytest.raises(BundleError, match=message) as caught:
        load_vissl(tmp_path / "seer.torch")
    assert "\n" not in str(caught.value)


class MakeFolder:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path, made = tmp_path / "evil.torch", tmp_path / "made"
    checkpoint = published_seer(some_trunk()) | {"extra": MakeFolder(made)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(checkpoint))
    else:
        torch.save(checkpoint, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(BundleError, match=r"pickled code|not a readable checkpoint") as caught:
        load_vissl(path)
    assert "\n" not in str(caught.value)
    assert form == "plain pickle" or "mkdir" in str(caught.value)
    assert not made.exists()
    torch.load(path, weights_only=False) if form == "zip" else pickle.loads(
        pickle.dumps(MakeFolder(made))
    )
    assert made.exists()  # So the trap works.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable checkpoint"),
        (b"no checkpoint", "not a readable checkpoint"),
        ({"state_dict": {}}, "no classy_state_dict; not VISSL's"),
        ({"classy_state_dict": {"base_model": 3}}, r"no classy_state_dict\.base_model\.model;"),
        ({"classy_state_dict": {"base_model": {"model": {"trunk": 3}}}}, "no mapping of tensors"),
        ([torch.ones(1)], "no classy_state_dict"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "file.torch"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(BundleError, match=message) as caught:
        load_vissl(path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "seer.torch"
    torch.save(published_seer(some_trunk()), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BundleError, match="not a readable checkpoint"):
        load_vissl(path)


def test_no_such_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        resolve_backbone(f"vissl:{tmp_path / 'nowhere.torch'}")


@pytest.mark.slow
def test_seer_of_32_gf_at_full_size(tmp_path: Path) -> None:
    """145 million parameters, read here and by timm's own loader under its name for them."""
    path = tmp_path / "seer_regnet32gf_model_iteration244000.torch"
    checkpoint = published_seer(some_trunk("regnety_320"))
    torch.save(checkpoint, path)
    expected = run(by_timm(checkpoint, "regnety_320"))
    del checkpoint
    gc.collect()
    assert path.stat().st_size > 560e6
    backbone = load_vissl(path)
    assert (backbone.architecture, backbone.width) == ("regnety_320", 3712)
    assert torch.equal(features(backbone), expected)
    digest = backbone.digest
    del backbone
    gc.collect()
    timms = timm_backbone("regnety_320.seer", weights_file=path)
    assert (timms.digest, timms.licence) == (digest, "seer-license")
    path.unlink()


# Half precision and the zoo


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Two backbones in half precision, and something that is none."""
    for seed, name in enumerate(("tiny-shoes", "tiny-hats")):
        save_backbone(random_backbone("regnety_002", 64, seed), tmp_path / "zoo" / name, half=True)
        (tmp_path / "zoo" / name / "card.md").write_text("# A card\n", encoding="utf-8")
    (tmp_path / "zoo" / "__pycache__").mkdir()
    (tmp_path / "zoo" / "__init__.py").touch()
    return tmp_path / "zoo"


def test_half_precision_is_read_back_as_the_rounded_backbone(tmp_path: Path) -> None:
    whole = make_backbone(
        "regnety_002", Preprocessing(), licence="mit", origin="here", weights=some_trunk()
    )
    save_backbone(whole, tmp_path / "whole")
    save_backbone(whole, tmp_path / "half", half=True)
    sizes = [(tmp_path / f / "weights.safetensors").stat().st_size for f in ("half", "whole")]
    assert sizes[0] < 0.55 * sizes[1]
    half = load_backbone(tmp_path / "half")
    assert {w.dtype for w in half.weights.values()} == {torch.float32, torch.int64}
    for name, tensor in whole.weights.items():
        rounded = tensor.half().float() if tensor.ndim > 1 else tensor
        assert torch.equal(half.weights[name], rounded)
    assert torch.allclose(features(half), features(whole), rtol=0.01, atol=0.01)
    assert half.digest != whole.digest


def test_a_digest_does_not_depend_on_how_weights_are_stored(tmp_path: Path, zoo: Path) -> None:
    """A bundle made with a backbone of the zoo stores float32, and is of the same features."""
    half = load_zoo("tiny-hats", zoo)
    save_backbone(half, tmp_path / "float32")
    save_backbone(half, tmp_path / "float16", half=True)
    assert load_file(tmp_path / "float32" / "weights.safetensors")["stem.conv.weight"].dtype == (
        torch.float32
    )
    assert load_backbone(tmp_path / "float32").digest == half.digest
    assert load_backbone(tmp_path / "float16").digest == half.digest


def test_zoo_names_and_loads(zoo: Path) -> None:
    assert names(zoo) == ["tiny-hats", "tiny-shoes"]
    assert load_zoo("tiny-hats", zoo).digest != load_zoo("tiny-shoes", zoo).digest


def test_zoo_is_read_from_a_zip(zoo: Path, tmp_path: Path) -> None:
    """spark-submit --py-files has the package in one."""
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as file:
        for path in sorted(zoo.rglob("*")):
            file.write(path, path.relative_to(tmp_path))
    with zipfile.ZipFile(tmp_path / "package.zip") as file:
        root: Traversable = zipfile.Path(file, "zoo/")
        assert names(root) == ["tiny-hats", "tiny-shoes"]
        assert load_zoo("tiny-hats", root).digest == load_zoo("tiny-hats", zoo).digest
        assert features(load_zoo("tiny-hats", root)).shape == (1, 368)


@pytest.mark.parametrize(
    "name", ["no-such", "", ".", "..", "__pycache__", "tiny-hats/../tiny-hats"]
)
def test_unknown_in_the_zoo_lists_the_known(zoo: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="known: tiny-hats, tiny-shoes"):
        load_zoo(name, zoo)


def test_the_zoo_of_the_package_is_sound() -> None:
    for name in names():
        backbone = load_zoo(name)
        assert resolve_backbone(f"zoo:{name}").digest == backbone.digest
        assert features(backbone).shape == (1, backbone.width)
    with pytest.raises(SettingsError, match="zoo:no-such: unknown; known: "):
        resolve_backbone("zoo:no-such")


# Addresses


@pytest.mark.parametrize("uri", ["models:/a/1", "runs:/1/backbone", "folder", "tim:x", "", "timm"])
def test_other_addresses_are_left_to_the_registry(uri: str) -> None:
    assert backbone_from_source(uri) is None


def test_what_can_be_given_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"timm:…, vissl:… or zoo:…"):
        resolve_backbone(str(tmp_path / "nowhere"))
