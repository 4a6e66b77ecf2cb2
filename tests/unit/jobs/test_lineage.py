"""What an OpenLineage backend on loopback is told of a run, and what a bad one costs a job."""

import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState

from jobs import build_manifest
from jobs.command import job_run, lineage
from jobs.command.settings import JobSettings, run_job
from schemas.errors import DataContractError, PartitionBusy
from schemas.manifest import MANIFEST
from seer_model import __version__
from seer_model.tracking import runs
from tests.support.lineage_backend import Backend, Event, lineage_backend
from tests.support.listing_tables import DS

PARENT = "018f4f5e-7d1c-7e6a-9d4d-0c5b5d3c2b1a"


@pytest.fixture(autouse=True)
def _no_variables() -> Iterator[None]:
    with patch.dict(os.environ):  # The client sets some, too.
        for name in [name for name in os.environ if name.startswith("OPENLINEAGE")]:
            del os.environ[name]
        yield


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    with lineage_backend() as started:
        monkeypatch.setenv("OPENLINEAGE_URL", started.url)
        yield started


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "_SECONDS_TO_ANSWER", 0.3)


@pytest.fixture
def build(images: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs the job that needs no Spark; returns its exit code."""

    def call(*argv: str) -> int:
        flags = ["--images", str(images), "--output", str(tmp_path / "manifest"), "--ds", DS]
        return build_manifest.main([*flags, "--report", str(tmp_path / "report.json"), *argv])

    return call


def bake(work: Callable[[], object]) -> int:
    class BakeCake(JobSettings):
        """Bake a cake."""

    return run_job(BakeCake, lambda _: work() and None, [])


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        job_run.reads(Path("/flour"))
        raise error

    return work


def check(event: Event) -> None:
    """Build the event anew with the client's classes, which know what an event must have."""
    rest = dict(event)
    assert rest.pop("schemaURL").endswith("#/$defs/RunEvent")
    RunEvent(
        eventType=RunState(rest.pop("eventType")),
        run=Run(**rest.pop("run")),
        job=Job(**rest.pop("job")),
        inputs=[InputDataset(**dataset) for dataset in rest.pop("inputs")],
        outputs=[OutputDataset(**dataset) for dataset in rest.pop("outputs")],
        **rest,
    )


# What is told


def test_the_events_of_a_run(
    build: Callable[..., int], backend: Backend, images: Path, tmp_path: Path
) -> None:
    assert build() == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert "lineage_lost" not in report
    start, complete = backend.events
    for event in backend.events:
        check(event)
        assert event["job"]["namespace"] == "default"
        assert event["job"]["name"] == "build_manifest"
        assert event["job"]["facets"]["jobType"]["processingType"] == "BATCH"
        assert event["producer"] == f"urn:seer-categories:{__version__}"
        assert event["run"]["facets"]["nominalTime"]["nominalStartTime"] == f"{DS}T00:00:00Z"
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"]
    UUID(start["run"]["runId"])
    assert start["eventTime"] < complete["eventTime"]
    assert datetime.fromisoformat(start["eventTime"]).tzinfo is not None

    assert [(d["namespace"], d["name"]) for d in complete["inputs"]] == [("file", str(images))]
    (written,) = complete["outputs"]
    assert (written["namespace"], written["name"]) == ("file", str(tmp_path / "manifest"))
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == report["photos"] == 2
    (partition,) = written["outputFacets"]["subset"]["outputCondition"]["partitions"]
    assert partition["dimensions"] == {"ds": DS}
    assert written["facets"]["version"]["datasetVersion"] == report["digest"]
    fields = {f["name"]: f["type"] for f in written["facets"]["schema"]["fields"]}
    assert fields == {field.name: str(field.type) for field in MANIFEST}
    tags = {tag["key"]: tag["value"] for tag in complete["run"]["facets"]["tags"]["tags"]}
    assert tags["run_id"] == report["run_id"]


def test_a_failed_run(backend: Backend) -> None:
    error = DataContractError("http://me:secret@host/m:\n no such manifest")
    assert bake(raising(error)) == 3
    check(failed := backend.take("FAIL"))
    told = failed["run"]["facets"]["errorMessage"]
    assert told["message"] == "http://host/m: no such manifest"
    assert "stackTrace" not in told
    assert failed["inputs"][0]["name"] == "/flour"
    assert failed["run"]["runId"] == backend.take("START")["run"]["runId"]


@pytest.mark.parametrize(
    ("error", "code", "state"),
    [
        (PartitionBusy("busy"), 5, "FAIL"),
        (ZeroDivisionError("by http://me:secret@host"), 1, "FAIL"),
        (KeyboardInterrupt(), 130, "ABORT"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_endings(backend: Backend, error: BaseException, code: int, state: str) -> None:
    assert bake(raising(error)) == code
    check(told := backend.take(state))
    assert len(backend.events) == 2
    facet = told["run"]["facets"]["errorMessage"]
    assert "secret" not in str(facet)
    if code == 1:
        assert facet["message"] == "ZeroDivisionError: by http://host"
        assert "test_lineage.py" in facet["stackTrace"]


def test_namespace_and_parent(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "shop")
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", f"team/a/categorize_daily.bake/{PARENT}")
    assert bake(lambda: None) == 0
    for event in backend.events:
        check(event)
        assert event["job"]["namespace"] == "shop"
        parent = event["run"]["facets"]["parent"]
        assert parent["run"]["runId"] == PARENT
        assert parent["job"]["namespace"] == "team/a"
        assert parent["job"]["name"] == "categorize_daily.bake"


def test_the_data_of_a_run_are_its_own(backend: Backend) -> None:
    job_run.reads("/outside/of/any/run")
    assert bake(lambda: job_run.adds_to(Path("/first"))) == 0
    backend.events.clear()
    assert bake(lambda: job_run.adds_to(None)) == 0
    assert backend.take("COMPLETE")["inputs"] == backend.take("COMPLETE")["outputs"] == []


MLFLOW = "http://mlflow:5000"
HERE = str(Path.cwd())


@pytest.mark.parametrize(
    ("where", "namespace", "name"),
    [
        (Path("/data/categories"), "file", "/data/categories"),
        (Path("/data/a#b c?d%20/"), "file", "/data/a#b c?d%20"),
        (Path("data"), "file", f"{HERE}/data"),
        ("data/manifest", "file", f"{HERE}/data/manifest"),
        ("file:/data/manifest/", "file", "/data/manifest"),
        ("file:///", "file", "/"),
        ("s3://bucket/a/manifest", "s3://bucket", "a/manifest"),
        ("s3a://key:secret@bucket/manifest/", "s3://bucket", "manifest"),
        ("s3a://bucket", "s3://bucket", "/"),
        ("gs://bucket/manifest", "gs://bucket", "manifest"),
        ("hdfs://node:8020/manifest", "hdfs://node:8020", "/manifest"),
        (
            "abfss://container@account.dfs.core.windows.net/m",
            "abfss://container@account.dfs.core.windows.net",
            "m",
        ),
        ("table:lake.shop.categories", "lake", "shop.categories"),
        ("models:/shoes", MLFLOW, "models:/shoes"),
        ("zoo:retail-400mf", "zoo", "retail-400mf"),
    ],
)
def test_names(
    monkeypatch: pytest.MonkeyPatch, where: str | Path, namespace: str, name: str
) -> None:
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: "http://me:secret@mlflow:5000")
    assert lineage._name(where) == (namespace, name)


def test_the_address_of_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: "sqlite:///mlflow.db")
    assert runs.tracking_address() == f"sqlite:///{HERE}/mlflow.db"


@pytest.mark.parametrize(
    ("uri", "where"),
    [
        ("models:/shoes@champion", "models:/shoes@champion"),
        ("models:/shoes/3", "models:/shoes"),
        ("runs:/0a1b/bundle", "runs:/0a1b/bundle"),
        ("zoo:retail-400mf", "zoo:retail-400mf"),
        ("vissl:/weights/seer.torch", Path("/weights/seer.torch")),
        ("bundles/shoes", Path("bundles/shoes")),
    ],
)
def test_models(uri: str, where: str | Path) -> None:
    found: list[job_run.Dataset] = []

    def look() -> None:
        job_run.reads_model(uri, "3")
        run = job_run._current.get()
        assert run is not None
        found.extend(run.inputs)

    assert bake(look) == 0
    assert found == [job_run.Dataset(where, version="3")]


# What a bad backend costs


def lost(report: Path, caplog: pytest.LogCaptureFixture) -> str:
    """What the report says was lost; there must be a single warning."""
    (warning,) = (r for r in caplog.records if r.levelno >= logging.WARNING)
    assert warning.name == "jobs.command.lineage"
    told: str = json.loads(report.read_text(encoding="utf-8"))["lineage_lost"]
    assert told in warning.getMessage()
    return told


def metric(path: Path) -> str:
    (line,) = (
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("seer_build_manifest_last_run_lineage_events_lost")
    )
    return line.partition(" ")[2]


@pytest.mark.parametrize("fault", ["closed", "silent", "500", "404"])
@pytest.mark.usefixtures("impatient")
def test_a_backend_that_is_down_fails_no_job(
    fault: str,
    build: Callable[..., int],
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    if fault == "closed":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{port}")
    elif fault == "silent":
        backend.silent = True
    else:
        backend.status = int(fault)
    metrics = tmp_path / "manifest.prom"
    started = monotonic()
    assert build("--metrics-file", str(metrics)) == 0
    assert monotonic() - started < 30
    assert lost(tmp_path / "report.json", caplog).startswith("START: ")
    assert metric(metrics) == "2.0"
    assert backend.events == []
    assert job_run.events_lost() == []  # The run is over.


@pytest.mark.usefixtures("impatient")
def test_a_backend_that_comes_back_is_told_the_end(
    build: Callable[..., int], backend: Backend, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    backend.status = 404
    original, metrics = lineage.Lineage.end, tmp_path / "manifest.prom"

    def end(self: lineage.Lineage, run: job_run.JobRun) -> None:
        backend.status = 201
        original(self, run)

    with patch.object(lineage.Lineage, "end", end):
        assert build("--metrics-file", str(metrics)) == 0
    lost(tmp_path / "report.json", caplog)
    assert metric(metrics) == "1.0"
    assert [event["eventType"] for event in backend.events] == ["COMPLETE"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("PARENT_ID", "team/bake/not-a-uuid"), ("PARENT_ID", "x"), ("_TRANSPORT__TYPE", "pigeon")],
)
def test_wrong_variables_fail_no_job(
    name: str,
    value: str,
    build: Callable[..., int],
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv(f"OPENLINEAGE_{name}", value)
    assert build() == 0
    assert lost(tmp_path / "report.json", caplog).startswith("START: ")


# Without a backend


@pytest.mark.parametrize("variables", [{}, {"URL": "http://127.0.0.1:1", "DISABLED": "True"}])
def test_without_a_backend_the_client_is_not_imported(
    variables: dict[str, str],
    build: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OPENLINEAGE_{name}", value)
    monkeypatch.setitem(sys.modules, "jobs.command.lineage", None)  # An import would fail.
    assert build() == 0
    assert "lineage" not in caplog.text
    assert "lineage_lost" not in (tmp_path / "report.json").read_text(encoding="utf-8")


def test_a_client_that_is_not_installed(
    build: Callable[..., int],
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.delitem(sys.modules, "jobs.command.lineage")
    monkeypatch.setitem(sys.modules, "openlineage.client", None)
    assert build() == 0
    report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert "pip install 'seer-categories[lineage]'" in report["lineage_lost"]
    assert "seer-categories[lineage]" in caplog.text
