"""A training that starts from the weights of another backbone."""

from pathlib import Path

import pytest
import torch

from schemas.errors import SettingsError
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.weights import make_backbone, random_backbone
from tests.support.swav_training import TINY, make_trainer, write_manifest


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("manifest"))


@pytest.fixture(scope="module")
def start() -> Backbone:
    other = random_backbone(TINY.architecture, seed=7)
    return make_backbone(
        TINY.architecture,
        Preprocessing(mean=(0.5, 0.5, 0.5)),
        licence="mit",
        origin="elsewhere",
        weights=other.weights,
    )


def test_it_begins_with_those_weights_and_their_preprocessing(
    manifest: Path, tmp_path: Path, start: Backbone
) -> None:
    trainer = make_trainer(TINY, manifest, tmp_path, start=start)
    first = trainer.backbone(licence="mit", origin="")
    assert first.digest == start.digest
    assert first.preprocessing == start.preprocessing
    trainer.run(lambda _: None)
    assert trainer.backbone(licence="mit", origin="").digest != start.digest
    # Learning leaves what it started from alone.
    again = random_backbone(TINY.architecture, seed=7)
    assert all(torch.equal(start.weights[name], again.weights[name]) for name in again.weights)


def test_it_goes_on_only_from_the_same_start(
    manifest: Path, tmp_path: Path, start: Backbone
) -> None:
    make_trainer(TINY, manifest, tmp_path, start=start).save()
    assert make_trainer(TINY, manifest, tmp_path, start=start).resume()
    with pytest.raises(SettingsError, match="or other initial weights"):
        make_trainer(TINY, manifest, tmp_path).resume()


def test_another_architecture_is_refused(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"are of regnety_004, not {TINY.architecture}"):
        make_trainer(TINY, manifest, tmp_path, start=random_backbone("regnety_004"))
