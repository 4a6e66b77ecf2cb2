"""MLflow runs: what is logged, and what happens to a job that cannot log."""

import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from jobs.pages.evaluation_plots import training_plots
from schemas.errors import SettingsError, without_passwords
from seer_model.processes import process_mark
from seer_model.tracking import registration, runs
from tests.support.evaluations import drawn_outcomes
from tests.support.tracking_database import new_database

REFUSED = f"[Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}"


@pytest.fixture(autouse=True)
def _mlflow(uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs.connect(uri)
    yield
    runs.connect(uri)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return new_database(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture
def nobody() -> str:
    """An address, with a password, where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://user:secret@127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")


# Logging


def test_figures_of_any_depth_are_metrics_by_name() -> None:
    with runs.tracked_run("test", {}) as run_id:
        runs.log_figures(
            {"a": 1, "b": 2.5, "c": "text", "d": None, "e": True, "f": {"g (h)": 3, "i": {"j": 4}}}
        )
        runs.log_figures({"loss": 0.5}, step=3)
        runs.log_curves({"train_loss": [3.0, 2.0, 1.0], "val_loss": [4.0, 5.0]})
    client = MlflowClient()
    assert client.get_run(run_id).data.metrics == {
        "a": 1,
        "b": 2.5,
        "f.g _h_": 3,
        "f.i.j": 4,
        "loss": 0.5,
        "train_loss": 1,
        "val_loss": 5,
    }
    curve = [(m.step, m.value) for m in client.get_metric_history(run_id, "train_loss")]
    assert curve == [(1, 3), (2, 2), (3, 1)]
    assert client.get_metric_history(run_id, "loss")[0].step == 3


def test_a_curve_of_thousands_of_epochs() -> None:
    with runs.tracked_run("test", {}) as run_id:
        runs.log_curves({"loss": [float(epoch) for epoch in range(2500)]})
    assert len(MlflowClient().get_metric_history(run_id, "loss")) == 2500
    assert runs.logging_failure() is None


def test_parameters_have_no_passwords() -> None:
    given = {"manifest": "s3://key:secret@bucket/manifest", "model": "models:/name@champion"}
    with runs.tracked_run("test", given) as run_id:
        data = {"manifest": given["manifest"], "ds": "2026-11-25", "rows": 3, "digest": "d" * 32}
        runs.log_data(data)
    run = MlflowClient().get_run(run_id)
    assert run.data.params == {"manifest": "s3://bucket/manifest", "model": given["model"]}
    assert run.inputs.dataset_inputs[0].dataset.name == "s3://bucket/manifest/ds=2026-11-25"
    assert "secret" not in str(run.to_dictionary())


def test_logging_to_another_run() -> None:
    with runs.tracked_run("first", {}) as first:
        pass
    data = {"manifest": "m", "ds": None, "rows": 1, "digest": "d"}
    runs.log_figures({"loss": 1}, step=1, run_id=first)
    runs.log_data(data, run_id=first)
    run = MlflowClient().get_run(first)
    assert run.data.metrics == {"loss": 1}
    assert [used.dataset.name for used in run.inputs.dataset_inputs] == ["m"]
    assert run.info.status == "FINISHED"


def test_without_a_run_nothing_is_logged_and_none_is_begun() -> None:
    experiment = mlflow.get_experiment_by_name(runs.EXPERIMENT)
    assert experiment is not None
    before = len(MlflowClient().search_runs([experiment.experiment_id]))
    runs.log_figures({"a": 1})
    runs.log_text("text", "file.txt")
    runs.link_model("no-such-model", "1")
    assert mlflow.active_run() is None
    assert len(MlflowClient().search_runs([experiment.experiment_id])) == before


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_killed_runs_of_the_job_are_marked_by_the_next_one(uri: str) -> None:
    mark = process_mark()
    assert mark is not None
    dead = f"{mark.rpartition(' ')[0]} 1"
    experiment = mlflow.get_experiment_by_name(runs.EXPERIMENT)
    assert experiment is not None
    client = MlflowClient()
    given = {
        "killed": {"job": "mine", "process": dead},
        "another job's": {"job": "other", "process": dead},
        "alive": {"job": "mine", "process": mark},
        "another host's": {"job": "mine", "process": f"x{dead}"},
        "of an earlier version": {"job": "mine"},
    }
    made = {
        name: client.create_run(experiment.experiment_id, tags=tags).info.run_id
        for name, tags in given.items()
    }
    with runs.tracked_run("mine", {}) as run_id:
        assert client.get_run(run_id).data.tags["process"] == mark
        found = {name: client.get_run(run).info.status for name, run in made.items()}
    assert found == {name: "KILLED" if name == "killed" else "RUNNING" for name in given}
    assert client.get_run(run_id).info.status == "FINISHED"


def test_the_name_of_a_run_says_what_it_was_about() -> None:
    client = MlflowClient()
    with runs.tracked_run("train_head", {"ds": None}) as undated:
        pass
    with runs.tracked_run("categorize_listings", {"ds": date(2026, 11, 25)}) as dated:
        runs.add_to_name("categorizer v3")
    names = [client.get_run(run).info.run_name for run in (undated, dated)]
    assert names == ["train_head", "categorize_listings 2026-11-25 categorizer v3"]


def test_plots_are_artifacts() -> None:
    plots = training_plots(drawn_outcomes(40, 0.7, 0), 0.8)
    with runs.tracked_run("test", {}) as run_id:
        for name, plot in plots.items():
            runs.log_plot(plot, f"{name}.png")
    files = {file.path: file.file_size for file in MlflowClient().list_artifacts(run_id)}
    assert files.keys() == {"reliability.png", "precision_by_coverage.png"}
    assert min(files.values()) > 5000
    assert runs.logging_failure() is None


def test_the_experiment_is_shown_as_one_of_training_unless_a_person_chose(uri: str) -> None:
    tag = "mlflow.experimentKind"
    experiment = mlflow.get_experiment_by_name(runs.EXPERIMENT)
    assert experiment is not None
    assert experiment.tags[tag] == "custom_model_development"
    for kind, after in (
        ("genai_development_inferred", "custom_model_development"),
        ("genai_development", "genai_development"),
    ):
        MlflowClient().set_experiment_tag(experiment.experiment_id, tag, kind)
        runs.connect(uri)
        assert mlflow.get_experiment(experiment.experiment_id).tags[tag] == after


# Failing


def test_an_exception_marks_the_run_as_failed_and_propagates() -> None:
    with pytest.raises(ZeroDivisionError), runs.tracked_run("test", {}) as run_id:
        raise ZeroDivisionError
    assert MlflowClient().get_run(run_id).info.status == "FAILED"
    assert mlflow.active_run() is None


@pytest.mark.usefixtures("_no_backoff")
def test_a_server_that_is_not_there_is_one_line_without_the_password(nobody: str) -> None:
    with pytest.raises(SettingsError) as caught:
        runs.connect(nobody)
    address = nobody.replace("user:secret@", "")
    assert str(caught.value) == f"no MLflow at {address}: {REFUSED}"


def test_a_server_that_does_not_answer_times_out_in_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "_SECONDS_TO_ANSWER", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        with pytest.raises(SettingsError, match="timed out"):
            runs.connect(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - started < 30


@pytest.mark.usefixtures("_no_backoff")
def test_a_dead_server_is_asked_once_and_its_failure_reported(
    nobody: str, caplog: pytest.LogCaptureFixture
) -> None:
    with runs.tracked_run("test", {}):
        assert runs.logging_failure() is None
        mlflow.set_tracking_uri(nobody)
        started = time.monotonic()
        for number in range(50):
            runs.log_figures({"a": number})
            runs.log_text("text", "file.txt")
        assert time.monotonic() - started < 30
    assert runs.logging_failure() == f"figures not logged: {REFUSED}"
    assert mlflow.active_run() is None
    lines = [record.getMessage() for record in caplog.records if record.name == runs.__name__]
    assert len(lines) == 2
    assert "figures not logged" in lines[0]
    assert "status FINISHED not logged" in lines[1]
    assert "secret" not in caplog.text


def test_one_failure_to_log_does_not_stop_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with runs.tracked_run("test", {}) as run_id:
        runs.link_model("no-such-model", "7")
        runs.log_figures({"a": 1})
    assert "model not logged" in caplog.text
    assert runs.logging_failure() is not None
    run = MlflowClient().get_run(run_id)
    assert (run.data.metrics, run.info.status) == ({"a": 1}, "FINISHED")
    with runs.tracked_run("test", {}):
        assert runs.logging_failure() is None


def test_a_model_that_cannot_be_registered_is_kept(tmp_path: Path) -> None:
    kept: list[Path] = []

    def keep() -> Path:
        kept.append(tmp_path / "kept")
        return kept[-1]

    with (
        pytest.raises(registration.RegistrationFailed) as caught,
        registration.keep_on_failure("name", keep),
    ):
        raise MlflowException("RESOURCE_EXHAUSTED: disk full\nand more")
    assert str(caught.value) == (
        f"models:/name: not registered: RESOURCE_EXHAUSTED: disk full; the model is in {kept[0]}"
    )
    assert caught.value.exit_code == 1
    with registration.keep_on_failure("name", keep):
        pass
    assert len(kept) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://user:p@ss@host:1/a?b=c", "http://host:1/a?b=c"),
        ("at postgresql://me:pw@db/x and s3://k:s@b/y", "at postgresql://db/x and s3://b/y"),
        ("http://host/photo@2x.jpg", "http://host/photo@2x.jpg"),
        ("models:/name@champion", "models:/name@champion"),
        ("me@example.org", "me@example.org"),
        ("sqlite:////tmp/a@b/mlflow.db", "sqlite:////tmp/a@b/mlflow.db"),
    ],
)
def test_without_passwords(text: str, expected: str) -> None:
    assert without_passwords(text) == expected


def test_library_logs_are_silenced() -> None:
    assert not logging.getLogger("urllib3.connectionpool").isEnabledFor(logging.WARNING)
