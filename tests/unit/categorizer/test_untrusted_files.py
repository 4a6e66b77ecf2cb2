"""Untrusted bundles and backbones: nothing is executed, no link followed, no foreign file taken."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from schemas.errors import BundleError, SettingsError
from seer_model.backbones import zoo
from seer_model.backbones.timm_weights import timm_backbone
from seer_model.categorizer.bundle import load_bundle
from tests.support.refusals import FILES, EditJson, load_whole_backbone, refusal, seal
from tests.support.trunks import MakeFolder, publish_at


def write_pickle(path: Path, form: str, made: Path) -> None:
    content = {"weight": torch.zeros(6, 368), "bias": MakeFolder(made)}
    if form == "plain":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")


# Pickles


@pytest.mark.parametrize("form", ["plain", "zip", "legacy"])
@pytest.mark.parametrize("name", [*FILES, "bundle.json", "hook.pkl", "backbone/weights.bin"])
def test_a_pickle_in_a_bundle_is_refused_and_not_run(
    folder: Path, edit_json: EditJson, form: str, name: str
) -> None:
    made = folder.parent / "made"
    write_pickle(folder / name, form, made)
    if name.endswith(("safetensors", "parquet")):
        seal(folder, edit_json)
    assert (folder / name).name in refusal(folder)
    assert not made.exists()


def test_the_trap_works(tmp_path: Path) -> None:
    """A pickle that is executed makes its folder."""
    for form in ("plain", "zip", "legacy"):
        write_pickle(tmp_path / "trap", form, tmp_path / form)
        if form == "plain":
            pickle.loads((tmp_path / "trap").read_bytes())
        else:
            torch.load(tmp_path / "trap", weights_only=False)
        assert (tmp_path / form).is_dir()


@pytest.mark.parametrize("form", ["plain", "zip", "legacy"])
def test_a_pickle_for_weights_is_refused_and_not_run(
    backbone_folder: Path,
    seal_weights: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    made = backbone_folder.parent / "made"
    write_pickle(backbone_folder / "weights.safetensors", form, made)
    seal_weights(backbone_folder)
    assert "not a readable safetensors file" in refusal(backbone_folder, load_whole_backbone)
    monkeypatch.setattr(zoo, "_ZOO", backbone_folder.parent)
    with pytest.raises(BundleError, match="not a readable safetensors file"):
        zoo.load_zoo("backbone").build()
    assert not made.exists()


@pytest.mark.parametrize("suffix", ["pth", "bin", "safetensors", "npz"])
def test_a_download_that_is_a_pickle_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"weights.{suffix}"
    torch.save({"state_dict": MakeFolder(tmp_path / "made")}, path)
    publish_at(path, monkeypatch)
    with pytest.raises(SettingsError, match="cannot download its weights") as caught:
        timm_backbone("regnety_002.pycls_in1k")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "made").exists()


# Links and special files


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../head.safetensors", "backbone/../head.safetensors"]
)
def test_a_path_out_of_the_bundle_is_refused(folder: Path, edit_json: EditJson, name: str) -> None:
    def rename(record: dict[str, dict[str, str]]) -> None:
        record["files"][name] = record["files"].pop("head.safetensors")

    edit_json(folder / "bundle.json", rename)
    assert "files must be exactly" in refusal(folder)


@pytest.mark.parametrize("name", ["bundle.json", "backbone", *FILES])
@pytest.mark.parametrize("inside", [False, True])
def test_a_link_in_a_bundle_is_refused(folder: Path, name: str, inside: bool) -> None:
    """The owner of its target could change the content later."""
    moved = (folder if inside else folder.parent) / "moved"
    (folder / name).rename(moved)
    (folder / name).symlink_to(moved)
    assert "link" in refusal(folder) or inside


@pytest.mark.parametrize("name", ["backbone.json", "weights.safetensors"])
def test_a_link_out_of_a_backbone_is_refused(backbone_folder: Path, name: str) -> None:
    moved = backbone_folder.parent / "moved"
    (backbone_folder / name).rename(moved)
    (backbone_folder / name).symlink_to(moved)
    assert "a link out of its folder" in refusal(backbone_folder, load_whole_backbone)


@pytest.mark.parametrize("name", ["bundle.json", *FILES])
def test_a_pipe_or_device_is_refused_without_reading_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert f"{name}: not a regular file" in refusal(folder)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    assert name in refusal(folder)


def test_a_link_to_itself_is_refused(folder: Path) -> None:
    (folder / "bundle.json").unlink()
    (folder / "bundle.json").symlink_to("bundle.json")
    assert "bundle.json" in refusal(folder)


def test_a_foreign_file_is_refused(folder: Path) -> None:
    """It would be registered and sent to every executor with the rest."""
    (folder / ".DS_Store").write_bytes(b"")
    load_bundle(folder)
    (folder / "backbone/passwords.txt").write_text("secret", encoding="utf-8")
    assert "passwords.txt: does not belong into a model bundle; remove it" in refusal(folder)


# JSON


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("[" * 100_000, "not JSON", id="deep list"),
        pytest.param('{"a":' * 100_000 + "1" + "}" * 100_000, "not JSON", id="deep object"),
        pytest.param('{"format": "1.0", "format": "2.0"}', "'format' appears twice", id="twice"),
        pytest.param('{"format": "1.0"} {}', "not JSON", id="two objects"),
        pytest.param('{"format": ' + "9" * 5000 + "}", "not JSON", id="5000 digits"),
        pytest.param('{"format": "' + "9" * 5000 + '"}', "not a model bundle", id="5000 in text"),
        pytest.param('{"format": "2.0\\nok"}', "not a model bundle", id="two lines"),
        pytest.param('{"format": {"1.0": 1}}', "not a model bundle", id="an object"),
        pytest.param('"1.0"', "not a JSON object", id="text"),
        pytest.param("\ufeff{}", "not JSON", id="mark of byte order"),
        pytest.param('{"format": "1.0\\ud800"}', "not a model bundle", id="half a character"),
        pytest.param(" " * (17 << 20) + "{}", "larger than", id="17 MB"),
    ],
)
def test_hostile_json_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "bundle.json").write_text(text, encoding="utf-8")
    assert message in refusal(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", True),
        ("temperature", "1.0"),
        ("temperature", 10**400),
        ("temperature", -1),
        ("target_precision", float("nan")),
        ("target_precision", float("inf")),
        ("target_precision", None),
        ("thresholds", [float("inf"), 0.5, 0.5]),
        ("thresholds", ["0.5", 0.5, 0.5]),
        ("thresholds", [False, 0.5, 0.5]),
        ("thresholds", [[0.5], 0.5, 0.5]),
        ("thresholds", {"0": 0.5}),
        ("thresholds", 0.5),
    ],
)
def test_a_calibration_without_numbers_is_refused_by_key(
    folder: Path, edit_json: EditJson, key: str, value: object
) -> None:
    edit_json(folder / "bundle.json", lambda r: r["calibration"].update({key: value}))
    assert f"bundle.json: calibration.{key}" in refusal(folder)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"licence": "mit\nproprietary"}, id="licence of two lines"),
        pytest.param({"licence": ["mit"]}, id="licences"),
        pytest.param({"origin": "\x1b]0;owned\x07"}, id="terminal's codes"),
        pytest.param({"architecture": "regnety_" + "x" * 10_000}, id="long name"),
        pytest.param({"architecture": "../regnety_002"}, id="path"),
        pytest.param({"architecture": ["regnety_002"]}, id="list"),
        pytest.param({"architecture": "regnety_2560"}, id="5 GB"),
        pytest.param({"width": 10**400}, id="width"),
        pytest.param(
            {"preprocessing": {"image_size": "x" * 10_000, "mean": 0, "std": 0}}, id="size"
        ),
        pytest.param({"preprocessing": {"x\n" * 5000: 1}}, id="keys"),
    ],
)
def test_a_hostile_backbone_record_is_refused(
    backbone_folder: Path, edit_json: EditJson, change: dict[str, object]
) -> None:
    edit_json(backbone_folder / "backbone.json", lambda r: r.update(change))
    assert "backbone.json" in refusal(backbone_folder, load_whole_backbone)
