"""What a cluster is sent: the packed environment; and the fixtures of a job."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.spark.conftest import (
    broken_photos,
    bundle_folder,
    draw_photo,
    job,
    package,
    read_categories,
    tracking_uri,
    write_manifest,
)
from tests.support.conversions import convert_once
from tests.support.paths import ROOT
from tests.support.spark_python import CONVERSIONS

__all__ = [
    "broken_photos",
    "bundle_folder",
    "draw_photo",
    "job",
    "package",
    "read_categories",
    "tracking_uri",
    "write_manifest",
]


@pytest.fixture(scope="session", autouse=True)
def _converted_once() -> None:
    convert_once(Path(os.environ[CONVERSIONS]))


@pytest.fixture(scope="session")
def environment_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = tmp_path_factory.mktemp("dist") / "seer-environment.tar.gz"
    script = ROOT / "scripts" / "package_environment.py"
    subprocess.run([sys.executable, script, "--output", archive], check=True)
    return archive


@pytest.fixture(scope="session")
def environment(environment_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment, unpacked on a node."""
    folder = tmp_path_factory.mktemp("node") / "environment"
    with tarfile.open(environment_archive) as archive:
        archive.extractall(folder, filter="tar")
    return folder
