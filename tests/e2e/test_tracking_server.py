"""The jobs with a tracking server that stores artifacts too, and what they do when it dies."""

import atexit
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from demo.samples import draw_sample_listings
from jobs import build_manifest, categorize_listings, train_head
from schemas.categories import check_categories
from seer_model.categorizer.bundle import load_bundle
from seer_model.tracking import registry, runs
from tests.support.tracking_server import PASSWORD, Server

pytestmark = [pytest.mark.spark, pytest.mark.slow]

DS = "2026-11-25"
NAME = "listing-categorizer"


@pytest.fixture(autouse=True, scope="module")
def _no_tracking_uri(spark: SparkSession) -> Iterator[None]:
    """The jobs share the tests' session, and find no MLflow in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()
    # Other tests in this process must not use the dead server.
    runs.connect(f"sqlite:///{server.folder / 'after.db'}")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder, in which only what the jobs were told to write may appear."""
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        yield work


@pytest.fixture(scope="module")
def arguments(work: Path, server: Server) -> dict[str, dict[str, object]]:
    """Arguments of every job; the categorizer uses the version that the training registers."""
    samples = draw_sample_listings(work / "samples", 48)
    common = {"tracking-uri": server.uri, "embeddings": work / "embeddings"}
    return {
        "build_manifest": {
            "images": samples.images.parent,
            "listings": samples.listings_csv,
            "output": work / "manifest",
            "ds": DS,
            "tracking-uri": server.uri,
        },
        "train_head": {
            "manifest": work / "manifest",
            "taxonomy": samples.taxonomy_csv,
            "backbone": "timm:regnety_002",
            "target-precision": 0.3,
            **common,
        },
        "categorize_listings": {
            "manifest": work / "manifest",
            "ds": DS,
            "model": f"models:/{NAME}/1",
            "output": work / "categories",
            **common,
        },
    }


@pytest.fixture(scope="module")
def flags(arguments: dict[str, dict[str, object]], work: Path) -> Callable[..., list[str]]:
    """Returns a job's arguments, some of them changed."""

    def give(job: str, **changes: object) -> list[str]:
        options = {**arguments[job], "report": work / f"{job}.json", **changes}
        return [part for name, value in options.items() for part in (f"--{name}", str(value))]

    return give


@pytest.fixture
def running(server: Server) -> None:
    """To start a server takes as long as a job, so a test may leave it dead."""
    server.start()


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead server is asked as often, but at once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")


@pytest.fixture(scope="module")
def registered(server: Server, flags: Callable[..., list[str]], work: Path) -> str:
    """The first version: manifest built, bundle trained and registered, by the server's URI."""
    server.start()
    assert build_manifest.main(flags("build_manifest")) == 0
    assert train_head.main(flags("train_head")) == 0
    return report(work, "train_head")["version"]


def report(work: Path, job: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work / f"{job}.json").read_text(encoding="utf-8"))
    return found


def check_published(work: Path, figures: dict[str, Any]) -> None:
    table = pq.read_table(work / "categories" / f"ds={DS}")
    check_categories(table, "categories")
    assert table.num_rows == figures["listings"] > 0
    assert set(table["run_id"].to_pylist()) == {figures["run_id"]}


def test_the_jobs_need_only_the_uri(
    server: Server,
    registered: str,
    running: None,
    flags: Callable[..., list[str]],
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert registered == "1"
    scratch = work / "scratch"
    scratch.mkdir()
    at_exit: list[tuple[Any, ...]] = []

    def keep(work: Callable[..., object], *arguments: object, **options: object) -> object:
        if work is not shutil.rmtree:
            return register(work, *arguments, **options)
        at_exit.append(arguments)
        return work

    register = atexit.register
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(atexit, "register", keep)
    assert categorize_listings.main(flags("categorize_listings")) == 0
    shown = capfd.readouterr()
    for arguments in at_exit:
        shutil.rmtree(*arguments)
    figures = report(work, "categorize_listings")
    check_published(work, figures)
    assert figures["model"] == f"{NAME} version 1"
    assert "tracking_lost" not in figures
    assert not list(scratch.glob("seer-*")), "the model that was fetched was left behind"

    run = MlflowClient().get_run(figures["run_id"])
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert run.data.tags["model"] == f"models:/{NAME}/1"
    assert run.inputs.model_inputs
    trained = MlflowClient().get_run(report(work, "train_head")["run_id"])
    # Both read the manifest that was built; the training took its labelled listings.
    built = MlflowClient().get_run(report(work, "build_manifest")["run_id"])
    digests = [r.inputs.dataset_inputs[0].dataset.digest for r in (built, run, trained)]
    assert digests[0] == digests[1] != digests[2]
    # Curves are those of logistic regression; ridge, where it is better, has none.
    assert "val_top1" in trained.data.metrics

    # The server keeps the files, and nobody keeps the password.
    kept = {path.name for path in server.artifacts.rglob("*") if path.is_file()}
    assert {"report.json", "bundle.json", "weights.safetensors"} <= kept
    expected = {"samples", "manifest", "embeddings", "categories", "scratch"}
    assert {path.name for path in work.iterdir() if path.is_dir()} == expected
    assert not (work / "mlflow.db").exists()
    assert PASSWORD not in shown.out + shown.err
    for path in [*server.folder.rglob("*"), *work.glob("*.json"), *work.rglob("bundle.json")]:
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path


@pytest.mark.usefixtures("registered", "running")
def test_a_server_that_dies_during_the_run_costs_no_category(
    server: Server,
    flags: Callable[..., list[str]],
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    score, died = categorize_listings.score_photos, []

    def score_without_server(*arguments: Any) -> Any:
        server.kill()
        died.append(time.monotonic())
        return score(*arguments)

    monkeypatch.setattr(categorize_listings, "score_photos", score_without_server)
    assert categorize_listings.main(flags("categorize_listings")) == 0
    assert time.monotonic() - died[0] < 90
    figures = report(work, "categorize_listings")
    check_published(work, figures)
    assert "Connection refused" in figures["tracking_lost"]
    assert f"MLflow run {figures['run_id']}" in caplog.text
    assert "continuing without it" in caplog.text
    shown = capfd.readouterr()
    assert "Traceback" not in shown.err
    assert PASSWORD not in shown.out + shown.err + caplog.text + json.dumps(figures)
    # The run has what was logged before.
    run = MlflowClient(server.database).get_run(figures["run_id"])
    assert (run.info.status, run.data.params["ds"]) == ("RUNNING", DS)
    assert run.inputs.dataset_inputs


@pytest.mark.usefixtures("registered", "running")
def test_a_model_that_cannot_be_registered_is_kept(
    server: Server,
    flags: Callable[..., list[str]],
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fit = train_head.fit_bundle

    def fit_without_server(*arguments: Any, **options: Any) -> Any:
        fitted = fit(*arguments, **options)
        server.kill()
        return fitted

    monkeypatch.setattr(train_head, "fit_bundle", fit_without_server)
    assert train_head.main(flags("train_head", seed=1)) == 1
    error = capfd.readouterr().err
    assert "Traceback" not in error
    assert PASSWORD not in error
    line = error.splitlines()[-1]
    assert f"error: models:/{NAME}: not registered: " in line
    (kept,) = work.glob(f"{NAME}-*")
    assert line.endswith(f"the model is in {kept}")
    assert load_bundle(kept).training["seed"] == 1
    assert registry.resolve_bundle(str(kept)).folder == kept
    versions = MlflowClient(registry_uri=server.database).search_model_versions(f"name = '{NAME}'")
    assert len(versions) == 1


@pytest.mark.usefixtures("registered")
def test_a_server_that_is_down_stops_every_job_before_its_work(
    server: Server,
    flags: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server.kill()
    for job in (build_manifest, train_head, categorize_listings):
        name = job.__name__.removeprefix("jobs.")
        output = {} if job is train_head else {"output": tmp_path / "output"}
        started = time.monotonic()
        assert job.main(flags(name, report=tmp_path / "report.json", **output)) == 2
        assert time.monotonic() - started < 60
        (line,) = capfd.readouterr().err.splitlines()
        assert f"jobs.{name}: error: no MLflow at http://{server.address}: " in line
        assert line.endswith("Connection refused")
        assert not list(tmp_path.iterdir())
        assert mlflow.active_run() is None
