"""Runs in MLflow: what is logged of them, and what becomes of a job that cannot log."""

import errno
import logging
import os
import socket
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from schemas.errors import SettingsError
from seer_model import registry, tracking
from seer_model.code_version import VERSION
from seer_model.credentials import without_passwords

ROOT = Path(__file__).parents[2]
REFUSED = f"[Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}"


@pytest.fixture(autouse=True)
def _mlflow(uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking.connect(uri)
    yield
    tracking.connect(uri)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def nobody() -> str:
    """An address, with a password, where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://user:secret@127.0.0.1:{free.getsockname()[1]}"


def test_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION


# Logging


def test_figures_of_any_depth_are_metrics_by_name() -> None:
    with tracking.tracked_run("test", {}) as run_id:
        tracking.log_figures(
            {"a": 1, "b": 2.5, "c": "text", "d": None, "e": True, "f": {"g (h)": 3, "i": {"j": 4}}}
        )
        tracking.log_figures({"loss": 0.5}, step=3)
        tracking.log_curves({"train_loss": [3.0, 2.0, 1.0], "val_loss": [4.0, 5.0]})
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
    with tracking.tracked_run("test", {}) as run_id:
        tracking.log_curves({"loss": [float(epoch) for epoch in range(2500)]})
    assert len(MlflowClient().get_metric_history(run_id, "loss")) == 2500
    assert tracking.tracking_lost() is None


def test_parameters_have_no_passwords() -> None:
    given = {"manifest": "s3://key:secret@bucket/manifest", "model": "models:/name@champion"}
    with tracking.tracked_run("test", given) as run_id:
        data = {"manifest": given["manifest"], "ds": "2026-11-25", "rows": 3, "digest": "d" * 32}
        tracking.log_data(data)
    run = MlflowClient().get_run(run_id)
    assert run.data.params == {"manifest": "s3://bucket/manifest", "model": given["model"]}
    assert run.inputs.dataset_inputs[0].dataset.name == "s3://bucket/manifest/ds=2026-11-25"
    assert "secret" not in str(run.to_dictionary())


def test_another_run_takes_what_is_logged_to_it() -> None:
    with tracking.tracked_run("first", {}) as first:
        pass
    data = {"manifest": "m", "ds": None, "rows": 1, "digest": "d"}
    tracking.log_figures({"loss": 1}, step=1, run_id=first)
    tracking.log_data(data, run_id=first)
    run = MlflowClient().get_run(first)
    assert run.data.metrics == {"loss": 1}
    assert [used.dataset.name for used in run.inputs.dataset_inputs] == ["m"]
    assert run.info.status == "FINISHED"


def test_without_a_run_nothing_is_logged_and_none_is_begun() -> None:
    experiment = mlflow.get_experiment_by_name(tracking.EXPERIMENT)
    assert experiment is not None
    before = len(MlflowClient().search_runs([experiment.experiment_id]))
    tracking.log_figures({"a": 1})
    tracking.log_text("text", "file.txt")
    tracking.link_model("no-such-model", "1")
    assert mlflow.active_run() is None
    assert len(MlflowClient().search_runs([experiment.experiment_id])) == before


# Failing


def test_a_failure_marks_the_run_and_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError), tracking.tracked_run("test", {}) as run_id:
        raise ZeroDivisionError
    assert MlflowClient().get_run(run_id).info.status == "FAILED"
    assert mlflow.active_run() is None


def test_a_server_that_is_not_there_is_one_line_without_the_password(nobody: str) -> None:
    with pytest.raises(SettingsError) as caught:
        tracking.connect(nobody)
    address = nobody.replace("user:secret@", "")
    assert str(caught.value) == f"no MLflow at {address}: {REFUSED}"


def test_a_server_that_does_not_answer_is_given_up_in_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking, "_SECONDS_TO_ANSWER", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        with pytest.raises(SettingsError, match="timed out"):
            tracking.connect(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - started < 30


def test_what_is_lost_is_said_once_and_nothing_waits_again(
    nobody: str, caplog: pytest.LogCaptureFixture
) -> None:
    with tracking.tracked_run("test", {}):
        assert tracking.tracking_lost() is None
        mlflow.set_tracking_uri(nobody)
        started = time.monotonic()
        for number in range(50):
            tracking.log_figures({"a": number})
            tracking.log_text("text", "file.txt")
        assert time.monotonic() - started < 30
    assert tracking.tracking_lost() == f"figures not logged: {REFUSED}"
    assert mlflow.active_run() is None
    lines = [record.getMessage() for record in caplog.records if record.name == tracking.__name__]
    assert len(lines) == 2
    assert "figures not logged" in lines[0]
    assert "status FINISHED not logged" in lines[1]
    assert "secret" not in caplog.text


def test_a_refusal_of_one_thing_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with tracking.tracked_run("test", {}) as run_id:
        tracking.link_model("no-such-model", "7")
        tracking.log_figures({"a": 1})
    assert "model not logged" in caplog.text
    assert tracking.tracking_lost() is not None
    run = MlflowClient().get_run(run_id)
    assert (run.data.metrics, run.info.status) == ({"a": 1}, "FINISHED")
    with tracking.tracked_run("test", {}):
        assert tracking.tracking_lost() is None


def test_a_model_that_cannot_be_registered_is_kept(tmp_path: Path) -> None:
    kept: list[Path] = []

    def keep() -> Path:
        kept.append(tmp_path / "kept")
        return kept[-1]

    with pytest.raises(registry.RegistrationFailed) as caught, registry.registering("name", keep):
        raise MlflowException("RESOURCE_EXHAUSTED: disk full\nand more")
    assert str(caught.value) == (
        f"models:/name: not registered: RESOURCE_EXHAUSTED: disk full; the model is in {kept[0]}"
    )
    assert caught.value.exit_code == 1
    with registry.registering("name", keep):
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


def test_logs_of_libraries_are_kept_down() -> None:
    assert not logging.getLogger("urllib3.connectionpool").isEnabledFor(logging.WARNING)
