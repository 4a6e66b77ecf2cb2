"""Backbones: what changes the digest, the round trip, and refusals of damaged folders."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from schemas.errors import BundleError, SettingsError
from seer_model.backbones.backbone import (
    NETWORK_FILES,
    Backbone,
    load_backbone,
    save_backbone,
)
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.backbones.trunk import blueprint
from seer_model.backbones.weights import make_backbone, random_backbone
from tests.support.refusals import load_whole_backbone

Seal = Callable[[Path], None]
EditJson = Callable[..., None]
WEIGHTS = "weights.safetensors"
FIRST = "stem.conv.weight"


@pytest.fixture
def folder(backbone_folder: Path) -> Path:
    return backbone_folder


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


# Identity


def test_the_same_seed_gives_the_same_backbone(backbone: Backbone) -> None:
    again = random_backbone("regnety_002", image_size=64)
    assert again.digest == backbone.digest
    assert again.weights.keys() == backbone.weights.keys()
    assert all(torch.equal(again.weights[name], backbone.weights[name]) for name in again.weights)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"seed": 1}, id="seed"),
        pytest.param({"image_size": 96}, id="size"),
        pytest.param({"architecture": "regnety_004"}, id="architecture"),
        pytest.param({"feature_stages": 2}, id="stages"),
    ],
)
def test_any_setting_changes_the_digest(backbone: Backbone, other: dict[str, object]) -> None:
    options = {"architecture": "regnety_002", "image_size": 64, "seed": 0} | other
    assert random_backbone(**options).digest != backbone.digest


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    random_backbone("regnety_002", seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_weight_changes_the_digest(
    folder: Path, backbone: Backbone, seal_weights: Seal
) -> None:
    edit_weights(folder, lambda tensors: tensors[FIRST].view(-1)[0].add_(1e-3))
    weights = load_file(folder / WEIGHTS)
    other = make_backbone(
        "regnety_002", backbone.preprocessing, licence="mit", origin="", weights=weights
    )
    assert other.digest != backbone.digest
    seal_weights(folder)
    with pytest.raises(BundleError, match=r"weights_digest in backbone.json is not theirs"):
        load_backbone(folder).build()


def test_a_folder_of_an_older_version_is_read(
    folder: Path, backbone: Backbone, edit_json: EditJson
) -> None:
    """It has no network, and its record no digest of the weights."""
    for name in NETWORK_FILES:
        (folder / name).unlink()
    for key in ("weights_digest", "network_sha256"):
        edit_json(folder / "backbone.json", lambda record, key=key: record.pop(key))
    loaded = load_backbone(folder)
    assert (loaded.digest, loaded.network) == (backbone.digest, None)
    assert open_runtime(loaded).width == backbone.width


def test_licence_and_origin_do_not_change_the_digest(backbone: Backbone, tmp_path: Path) -> None:
    save_backbone(replace(backbone, licence="cc-by-nc-4.0", origin="elsewhere"), tmp_path)
    loaded = load_backbone(tmp_path)
    assert loaded.digest == backbone.digest
    assert (loaded.licence, loaded.origin) == ("cc-by-nc-4.0", "elsewhere")


@pytest.mark.parametrize(
    ("licence", "commercial"),
    [("apache-2.0", True), ("mit", True), ("cc-by-nc-4.0", False), ("other", False), ("", False)],
)
def test_only_known_licences_are_commercial(
    backbone: Backbone, licence: str, commercial: bool
) -> None:
    assert replace(backbone, licence=licence).commercial is commercial


# Digests as they always were


def state_by_hand() -> dict[str, torch.Tensor]:
    """Weights that do not depend on torch's random numbers."""
    return {
        name: torch.full(tensor.shape, number % 7 / 8).to(tensor.dtype)
        for number, (name, tensor) in enumerate(blueprint("regnety_002").state_dict().items())
    }


@pytest.mark.parametrize(
    ("stages", "digest"),
    [
        (1, "71f46ecb16a18b69dca28e5fd3d7e8a56c6a5acd6c0d44848b3247299d6d57b7"),
        (4, "453bd38792eac2bb137939ad45ba1d5a077592aba223c70f6b300c53e005c31b"),
    ],
)
def test_the_digest_of_a_backbone_never_changes(stages: int, digest: str) -> None:
    """Embedding stores are keyed by it."""
    backbone = make_backbone(
        "regnety_002",
        Preprocessing(image_size=96, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0)),
        licence="mit",
        origin="by hand",
        weights=state_by_hand(),
        feature_stages=stages,
    )
    assert backbone.digest == digest


# Round trip


@pytest.mark.parametrize("stages", [1, 3])
def test_round_trip_keeps_everything(stages: int, folder: Path) -> None:
    backbone = random_backbone("regnety_002", image_size=64, feature_stages=stages)
    save_backbone(backbone, folder)
    loaded = load_backbone(folder)
    assert loaded.network == folder
    assert replace(loaded, weights={}, network=None) == replace(backbone, weights={})
    assert loaded.weights.keys() == backbone.weights.keys()
    assert all(torch.equal(loaded.weights[name], backbone.weights[name]) for name in loaded.weights)


def test_loaded_trunk_gives_the_same_features(backbone: Backbone, folder: Path) -> None:
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = backbone.build()(pixels)
        assert torch.equal(load_backbone(folder).build()(pixels), features)
    assert features.shape == (2, backbone.width)
    assert features.std() > 0


def test_a_loaded_backbone_can_be_saved_to_its_own_folder(backbone: Backbone, folder: Path) -> None:
    loaded = load_backbone(folder)  # Its weights are mapped from the file.
    save_backbone(loaded, folder)
    assert load_backbone(folder).digest == backbone.digest
    assert loaded.build().state_dict().keys() == backbone.weights.keys()


def test_a_folder_is_overwritten(backbone: Backbone, folder: Path) -> None:
    other = random_backbone("regnety_002", image_size=64, seed=1)
    save_backbone(other, folder)
    assert load_backbone(folder).digest == other.digest


def test_who_runs_a_network_keeps_it_when_another_is_written_over_it(
    backbone: Backbone, folder: Path
) -> None:
    """Its files are mapped: written over in place, they would kill the process."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    runtime = open_runtime(load_backbone(folder))
    before = runtime.start(pixels)()
    save_backbone(random_backbone("regnety_002", image_size=64, seed=1), folder)
    assert np.array_equal(runtime.start(pixels)(), before)
    assert not np.array_equal(open_runtime(load_backbone(folder)).start(pixels)(), before)


# Refusals


def flip_a_byte(folder: Path, edit_json: EditJson, seal: Seal) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)


def cut_short(folder: Path, edit_json: EditJson, seal: Seal) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-4])
    seal(folder)


def pickle_them(folder: Path, edit_json: EditJson, seal: Seal) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pickled")
    (folder / "pickled").replace(folder / WEIGHTS)
    seal(folder)


def no_weights(folder: Path, edit_json: EditJson, seal: Seal) -> None:
    (folder / WEIGHTS).unlink()


def no_record(folder: Path, edit_json: EditJson, seal: Seal) -> None:
    (folder / "backbone.json").unlink()


def no_json(folder: Path, edit_json: EditJson, seal: Seal) -> None:
    (folder / "backbone.json").write_text("{", encoding="utf-8")


def a_json_list(folder: Path, edit_json: EditJson, seal: Seal) -> None:
    (folder / "backbone.json").write_text("[]", encoding="utf-8")


def set_first(value: float) -> Callable[[Path, EditJson, Seal], None]:
    def damage(folder: Path, edit_json: EditJson, seal: Seal) -> None:
        edit_weights(folder, lambda tensors: tensors[FIRST].view(-1)[0].fill_(value))
        seal(folder)

    return damage


def weights(
    change: Callable[[dict[str, torch.Tensor]], object],
) -> Callable[[Path, EditJson, Seal], None]:
    def damage(folder: Path, edit_json: EditJson, seal: Seal) -> None:
        edit_weights(folder, change)
        seal(folder)

    return damage


def record(**changes: object) -> Callable[[Path, EditJson, Seal], None]:
    return lambda folder, edit_json, seal: edit_json(
        folder / "backbone.json", lambda found: found.update(changes)
    )


def forget_the_origin(folder: Path, edit_json: EditJson, seal: Seal) -> None:
    edit_json(folder / "backbone.json", lambda found: found.pop("origin"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(flip_a_byte, "weights.safetensors: its digest", id="damaged"),
        pytest.param(cut_short, "not a readable safetensors", id="cut short"),
        pytest.param(pickle_them, "not a readable safetensors", id="pickled"),
        pytest.param(no_weights, "weights.safetensors: No such file", id="no weights"),
        pytest.param(no_record, "backbone.json: No such file", id="no record"),
        pytest.param(no_json, "backbone.json: not JSON", id="no JSON"),
        pytest.param(a_json_list, "not a JSON object", id="a list"),
        pytest.param(set_first(float("nan")), f"tensor '{FIRST}' .* not finite", id="NaN"),
        pytest.param(set_first(float("inf")), f"tensor '{FIRST}' .* not finite", id="infinite"),
        pytest.param(
            weights(lambda t: t.update({FIRST: torch.zeros(32, 3, 5, 5)})), FIRST, id="wrong shape"
        ),
        pytest.param(weights(lambda t: t.pop(FIRST)), FIRST, id="missing tensor"),
        pytest.param(
            weights(lambda t: t.update(extra=torch.zeros(1))), "extra", id="unknown tensor"
        ),
        pytest.param(record(surprise=1), "unknown key surprise", id="unknown key"),
        pytest.param(forget_the_origin, "key origin is missing", id="missing key"),
        pytest.param(record(architecture="regnety_004"), "do not fit regnety_004", id="another"),
        pytest.param(record(width=367), "width", id="wrong width"),
        pytest.param(record(width="wide"), "width", id="width is no number"),
        *(
            pytest.param(record(feature_stages=n), "feature_stages", id=f"{n} stages")
            for n in (0, 5, "4", True, None, 1.0)
        ),
        pytest.param(record(feature_stages=2), "width", id="more stages"),
        pytest.param(record(preprocessing=[64]), "preprocessing", id="preprocessing is a list"),
        pytest.param(
            record(preprocessing={"image_size": 64}),
            "preprocessing.mean is missing",
            id="incomplete",
        ),
    ],
)
def test_refusals(
    folder: Path,
    edit_json: EditJson,
    seal_weights: Seal,
    damage: Callable[[Path, EditJson, Seal], None],
    message: str,
) -> None:
    load_whole_backbone(folder)
    damage(folder, edit_json, seal_weights)
    with pytest.raises(BundleError, match=message) as caught:
        load_whole_backbone(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["regnety_nosuch", "regnety_002.pycls_in1k", "", "hf-hub:timm/regnety_002"]
)
def test_unknown_architecture(name: str) -> None:
    with pytest.raises(SettingsError, match="unknown architecture") as caught:
        random_backbone(name)
    assert "regnety_" in str(caught.value) or "timm.list_models()" in str(caught.value)


def test_unknown_architecture_in_a_folder(folder: Path, edit_json: EditJson) -> None:
    record(architecture="regnety_nosuch")(folder, edit_json, lambda _: None)
    with pytest.raises(BundleError, match=r"backbone.json: unknown architecture 'regnety_nosuch'"):
        load_backbone(folder).build()
