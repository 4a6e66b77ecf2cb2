"""One MLflow database for all tests of the jobs, and the manifest job on a folder of photos."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.build_manifest import main
from schemas.manifest import MANIFEST, check_manifest
from tests.support.listing_tables import DS, PhotoBytes, Rows, table


@pytest.fixture(scope="session", autouse=True)
def _database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Creating its tables takes ten seconds."""
    with pytest.MonkeyPatch.context() as patch:
        database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
        yield


@pytest.fixture
def images(tmp_path: Path, photo_bytes: PhotoBytes) -> Path:
    folder = tmp_path / "images"
    (folder / "shoes").mkdir(parents=True)
    (folder / "hat.png").write_bytes(photo_bytes(1, form="PNG"))
    (folder / "shoes/b.jpg").write_bytes(photo_bytes(2))
    return folder


@pytest.fixture
def build(images: Path, tmp_path: Path) -> Callable[..., Rows]:
    """Runs the job, checks what it wrote and returns the rows."""

    def call(*argv: str) -> Rows:
        output = tmp_path / "manifest"
        assert main(["--images", str(images), "--output", str(output), "--ds", DS, *argv]) == 0
        (file,) = (output / f"ds={DS}").iterdir()
        check_manifest(pq.read_schema(file), str(file))
        table = pq.read_table(file, partitioning=None)
        assert table.schema == MANIFEST
        rows: Rows = table.to_pylist()
        for row in rows:
            assert (row["image_uri"] is None) != (row["image_bytes"] is None)
        return rows

    return call


@pytest.fixture
def fail(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs the job, which must fail; returns its exit code and its line."""

    def call(*argv: str) -> tuple[int, str]:
        output = tmp_path / "manifest"
        code = main(["--images", str(images), "--output", str(output), "--ds", DS, *argv])
        assert not (output / f"ds={DS}").exists()
        (line,) = capsys.readouterr().err.splitlines()
        return code, line

    return call


@pytest.fixture
def report(build: Callable[..., Rows], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs the job on a table and returns its report."""

    def call(listings: str, *flags: str) -> dict[str, Any]:
        path = tmp_path / "reports" / "report.json"
        build("--listings", table(tmp_path, listings), "--report", str(path), *flags)
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return figures

    return call
