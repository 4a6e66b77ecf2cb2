"""Backbones from SEER checkpoints as VISSL saves them; whatever else a file holds is refused."""

import gc
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.regnet import _filter_fn

from schemas.errors import BundleError, SettingsError
from seer_model.backbone_sources import timm_backbone
from seer_model.registry import resolve_backbone
from seer_model.trunk import Trunk
from seer_model.vissl import load_vissl
from tests.unit.trunks import (
    MakeFolder,
    State,
    features,
    published_seer,
    run,
    some_trunk,
    trunk_of,
)

torch.set_num_threads(1)


def by_timm(checkpoint: Mapping[str, Any], architecture: str) -> torch.nn.Module:
    """The trunk as timm converts it."""
    module = Trunk(architecture)
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
