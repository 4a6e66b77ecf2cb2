"""What a run of the manifest job leaves: its report, and its run in MLflow."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from jobs.build_manifest import main
from seer_model.code_version import VERSION

DS = "2026-11-25"
LISTINGS = """\
listing_id,image_index,path,category_id,split
L1,0,hat.png,caps,train
L1,1,nosuch.jpg,caps,train
L2,0,hat.png,caps,val
L3,0,hat.png,,
"""


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def build(
    uri: str, tmp_path: Path, photo_bytes: Callable[..., bytes]
) -> Callable[..., dict[str, Any]]:
    """Runs the job and gives its report."""
    images = tmp_path / "images"
    images.mkdir()
    (images / "hat.png").write_bytes(photo_bytes(1, form="PNG"))

    def run(listings: str = LISTINGS, *flags: str) -> dict[str, Any]:
        (tmp_path / "listings.csv").write_text(listings, encoding="utf-8")
        report = tmp_path / "reports" / "report.json"
        options = {
            "images": images,
            "listings": tmp_path / "listings.csv",
            "output": tmp_path / "manifest",
            "ds": DS,
            "tracking-uri": uri,
            "report": report,
        }
        argv = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        assert main([*argv, *flags]) == 0
        return json.loads(report.read_text(encoding="utf-8"))

    return run


def test_report(build: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    report = build()
    assert report.keys() >= {"digest", "run_id"}
    assert {k: v for k, v in report.items() if k not in {"digest", "run_id"}} == {
        "manifest": str(tmp_path / "manifest"),
        "ds": DS,
        "photos": 4,
        "photos_missing": 1,
        "listings": 3,
        "listings_labelled": 2,
    }
    head, *rows = LISTINGS.splitlines()
    assert build("\n".join([head, *rows[::-1]]))["digest"] == report["digest"]
    assert build(LISTINGS.replace("val", "test"))["digest"] != report["digest"]


def test_run(build: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    report = build(LISTINGS, "--split", "train")
    run = MlflowClient().get_run(report["run_id"])
    assert (run.info.run_name, run.info.status) == ("build_manifest", "FINISHED")
    assert run.data.params["split"] == "['train']"
    assert run.data.tags["package_version"] == VERSION
    assert run.data.metrics == {
        "photos": 2,
        "photos_missing": 1,
        "listings": 1,
        "listings_labelled": 1,
    }
    (built,) = run.inputs.dataset_inputs
    assert built.dataset.name == f"{tmp_path / 'manifest'}/ds={DS}"
    assert built.dataset.digest == report["digest"]
    path = mlflow.artifacts.download_artifacts(run_id=report["run_id"], artifact_path="report.json")
    assert json.loads(Path(path).read_text(encoding="utf-8")) == report
    (file,) = (tmp_path / "manifest" / f"ds={DS}").iterdir()
    assert file.name == f"part-{report['run_id']}.parquet"
