"""Models to be changed; how the fuzzing tests are run."""

import shutil
from pathlib import Path

import pytest

from seer_model.backbone import Backbone, save_backbone


@pytest.fixture
def folder(saved_bundle: Path, tmp_path: Path) -> Path:
    """A bundle's folder to be changed."""
    shutil.copytree(saved_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def backbone_folder(backbone: Backbone, tmp_path: Path) -> Path:
    save_backbone(backbone, tmp_path / "backbone")
    return tmp_path / "backbone"
