"""SEER checkpoints in VISSL's layout are read; files with anything else are refused."""

import gc
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from schemas.errors import BundleError, SettingsError
from seer_model.backbones.timm_weights import timm_backbone
from seer_model.backbones.vissl import load_vissl
from seer_model.tracking.registry import resolve_backbone
from tests.support.trunks import (
    MakeFolder,
    State,
    features,
    publish_at,
    published_seer,
    some_trunk,
    trunk_of,
)

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("architecture", "zipped"), [("regnety_002", False), ("regnety_008_tv", True)]
)
def test_a_published_checkpoint_is_read(tmp_path: Path, architecture: str, zipped: bool) -> None:
    path = tmp_path / "seer.torch"
    trunk = some_trunk(architecture)
    torch.save(published_seer(trunk), path, _use_new_zipfile_serialization=zipped)
    backbone = resolve_backbone(f"vissl:{path}")
    path.unlink()
    assert backbone.architecture == architecture
    assert list(backbone.weights) == list(trunk)
    assert all(torch.equal(backbone.weights[name], trunk[name]) for name in trunk)
    assert features(backbone).shape == (1, backbone.width)
    assert (backbone.licence, backbone.commercial) == ("seer-license", False)
    assert "seer.torch" in backbone.origin
    assert str(tmp_path) not in backbone.origin


def test_counters_may_be_missing(tmp_path: Path) -> None:
    state = some_trunk()
    checkpoint = published_seer(state)
    trunk = trunk_of(checkpoint)
    for name in [name for name in trunk if name.endswith("num_batches_tracked")]:
        del trunk[name]
    torch.save(checkpoint, tmp_path / "seer.torch")
    backbone = load_vissl(tmp_path / "seer.torch")
    assert list(backbone.weights) == list(state)
    for name, tensor in backbone.weights.items():
        expected = torch.tensor(0) if name.endswith("num_batches_tracked") else state[name]
        assert torch.equal(tensor, expected)


FIRST = "_feature_blocks.res2.block1-0.f.a.0.weight"
FIRST_IN_TIMM = "s1.b1.conv1.conv.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda t: t.pop(FIRST),
            f"closest is regnety_002, .* missing {FIRST_IN_TIMM}$",
            id="missing",
        ),
        pytest.param(
            lambda t: [t.pop(name) for name in list(t) if "f.se." in name],
            "missing .*, .*, .* and 49 more$",
            id="many missing",
        ),
        pytest.param(
            lambda t: t.update({"_feature_blocks.extra": torch.ones(1)}),
            "regnety_002, with unexpected _feature_blocks.extra",
            id="unexpected",
        ),
        pytest.param(
            lambda t: t.update({FIRST: torch.ones(24, 31, 1, 1)}),
            rf"misshapen {FIRST_IN_TIMM} \[24, 31, 1, 1\], not \[24, 32, 1, 1\]",
            id="misshapen",
        ),
        pytest.param(
            lambda t: t.update({FIRST: torch.full((24, 32, 1, 1), torch.nan)}),
            f"tensor '{FIRST}' is not finite",
            id="not finite",
        ),
        pytest.param(
            lambda t: t.update({"head.weight": torch.ones(1)}), "'head.weight'", id="not a trunk's"
        ),
        pytest.param(lambda t: t.update({FIRST: 3}), f"'{FIRST}'", id="no tensor"),
        pytest.param(
            lambda t: t.update({"_feature_blocks.conv1.stem.0.weight": torch.ones(8, 3, 3, 3)}),
            r"closest is regnety_002, with misshapen stem.conv.weight \[8, 3, 3, 3\], not \[32, 3",
            id="unknown architecture",
        ),
        pytest.param(lambda t: t.clear(), "fits no RegNetY of timm", id="empty"),
        pytest.param(
            lambda t: t.update({"_feature_blocks.conv1.stem.0.weight.f.c.0": t[FIRST]}),
            "unexpected",
            id="a name made of others",
        ),
        pytest.param(
            lambda t: t.update({f"_feature_blocks.res2.block1-{'9' * 5000}.proj.weight": t[FIRST]}),
            "a tensor's name is too long",
            id="5000 digits",
        ),
        pytest.param(
            lambda t: t.update({"_feature_blocks.res9.block1-0.f.a.0.weight": t[FIRST]}),
            "two tensors have the same name",
            id="same name in timm",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, change: Callable[[State], object], message: str
) -> None:
    checkpoint = published_seer(some_trunk())
    change(trunk_of(checkpoint))
    torch.save(checkpoint, tmp_path / "seer.torch")
    with pytest.raises(BundleError, match=message) as caught:
        load_vissl(tmp_path / "seer.torch")
    assert "\n" not in str(caught.value)


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
    assert made.exists()  # The trap works.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable checkpoint"),
        (b"no checkpoint", "not a readable checkpoint"),
        ({"state_dict": {}}, "no classy_state_dict; not a checkpoint of VISSL"),
        ({"classy_state_dict": {"base_model": 3}}, r"no classy_state_dict\.base_model\.model;"),
        (
            {"classy_state_dict": {"base_model": {"model": {"trunk": 3}}}},
            "not a mapping of tensors",
        ),
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


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        resolve_backbone(f"vissl:{tmp_path / 'nowhere.torch'}")


@pytest.mark.slow
def test_seer_of_32_gf_at_full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """145 million parameters, read here and by timm's own loader under its name for them."""
    path = tmp_path / "seer_regnet32gf_model_iteration244000.torch"
    torch.save(published_seer(some_trunk("regnety_320")), path)
    gc.collect()
    assert path.stat().st_size > 560e6
    backbone = load_vissl(path)
    assert (backbone.architecture, backbone.width) == ("regnety_320", 3712)
    digest = backbone.digest
    del backbone
    gc.collect()
    publish_at(path, monkeypatch)
    timms = timm_backbone("regnety_320.seer")
    assert (timms.digest, timms.licence) == (digest, "seer-license")
    path.unlink()
