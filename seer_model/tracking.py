"""Runs in MLflow: what a job was given, what it read, what it found.

A tracking server that is down stops a job before it begins. One that goes away later stops nothing:
what is only logged is given up, with a warning, and `tracking_lost` says so for the job's report.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, Metric
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from schemas.errors import SettingsError
from seer_model.code_version import GIT_COMMIT, code_version
from seer_model.credentials import without_passwords

__all__ = [
    "EXPERIMENT",
    "connect",
    "link_model",
    "log_curves",
    "log_data",
    "log_figures",
    "log_file",
    "log_text",
    "one_line",
    "tracked_run",
    "tracking_lost",
]

log = logging.getLogger(__name__)

EXPERIMENT = "listing-categories"

_METRICS_AT_ONCE = 1000
_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_SECONDS_TO_ANSWER = 10
_SECONDS_WITHOUT_SERVER = 60


@dataclass
class _Losses:
    """Of the current run: what was lost first, and until when no server is expected to answer."""

    first: str | None = None
    no_server_until: float = 0.0


_losses = _Losses()


def connect(tracking_uri: str | None) -> str:
    """Use a tracking server or database for all that follows, and see that it answers.

    Args:
        tracking_uri: Or None for MLFLOW_TRACKING_URI, and without it `mlflow.db` in this folder.

    Returns:
        Which one that is.

    Raises:
        SettingsError: The address is not one of MLflow's, or nothing answers there.
    """
    tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # It would print the run's address as it is, with a password in it.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for noisy in ("alembic", "mlflow", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        mlflow.set_tracking_uri(tracking_uri)
        mlflow.set_registry_uri(tracking_uri)
        with _impatience():
            if mlflow.get_experiment_by_name(EXPERIMENT) is None:
                mlflow.create_experiment(EXPERIMENT, artifact_location=_artifacts(tracking_uri))
            mlflow.set_experiment(EXPERIMENT)
    except Exception as error:
        raise SettingsError(
            f"no MLflow at {without_passwords(tracking_uri)}: {one_line(error)}"
        ) from error
    return tracking_uri


def _artifacts(tracking_uri: str) -> str | None:
    """Beside a SQLite file; a server decides for itself."""
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return (Path(tracking_uri.removeprefix("sqlite:///")).resolve().parent / "mlruns").as_uri()


@contextmanager
def _impatience() -> Iterator[None]:
    """Let MLflow wait for seconds, not minutes, for answers; unless the environment says when."""
    if _TIMEOUT in os.environ:
        yield
        return
    os.environ[_TIMEOUT] = str(_SECONDS_TO_ANSWER)
    try:
        yield
    finally:
        del os.environ[_TIMEOUT]


def one_line(error: BaseException) -> str:
    """What went wrong, without passwords; of a server out of reach, what kept it so."""
    if _out_of_reach(error):
        while cause := error.__cause__ or error.__context__:
            error = cause
    text = str(error).strip() or type(error).__name__
    return without_passwords(text.splitlines()[0])


def _out_of_reach(error: BaseException) -> bool:
    """Whether no server answered: MLflow wraps what requests raises, which are OSErrors."""
    cause = error.__cause__ or error.__context__
    return isinstance(cause, OSError) and getattr(cause, "response", None) is None


@contextmanager
def tracked_run(job: str, parameters: Mapping[str, object]) -> Iterator[str]:
    """An MLflow run around a job's work; yields its id. It ends as finished, failed or killed.

    Its tags say which code ran (see `seer_model.code_version`).

    Raises:
        SettingsError: MLflow does not answer; nothing was done yet.
    """
    _losses.first, _losses.no_server_until = None, 0.0
    code = code_version()
    try:
        with _impatience():
            run = mlflow.start_run(run_name=job, tags={"job": job, **code})
    except Exception as error:
        raise SettingsError(f"MLflow began no run: {one_line(error)}") from error
    if GIT_COMMIT not in code:
        _attempt("code version", lambda _: _forget_main_script(run))
    given = {name: without_passwords(str(value))[:500] for name, value in parameters.items()}
    _attempt("parameters", lambda _: mlflow.log_params(given))
    status = "FAILED"
    try:
        yield run.info.run_id
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        _losses.no_server_until = 0.0
        _attempt(f"status {status}", lambda _: mlflow.end_run(status))


def _forget_main_script(run: mlflow.ActiveRun) -> None:
    """MLflow tags the commit of the checkout that the main script lies in, whatever code runs."""
    for tag in run.data.tags:
        if tag.startswith("mlflow.source.git."):
            MlflowClient().delete_tag(run.info.run_id, tag)


def _attempt(what: str, action: Callable[[str], object], run_id: str | None = None) -> None:
    """Log something to a run, the current one if none is named; warn if that cannot be done.

    Without a run there is nothing to log to. While a server is out of reach nothing is tried, as
    every try takes its time.
    """
    run = mlflow.active_run()
    run_id = run_id or (run.info.run_id if run else None)
    if run_id is None or monotonic() < _losses.no_server_until:
        return
    try:
        with _impatience():
            action(run_id)
    except Exception as error:
        problem = f"{what} not logged: {one_line(error)}"
        _losses.first = _losses.first or problem
        if _out_of_reach(error):
            _losses.no_server_until = monotonic() + _SECONDS_WITHOUT_SERVER
        log.warning("MLflow run %s: %s; going on without", run_id, problem)


def tracking_lost() -> str | None:
    """What the current run, or the last one, could not log first; None if all was logged."""
    return _losses.first


def log_figures(
    figures: Mapping[str, object], step: int | None = None, run_id: str | None = None
) -> None:
    """Log numbers to the current run, or to another; where they change over time, at a step.

    Args:
        figures: What is no number is left out; a mapping's numbers are named `outer.inner`.
        step: Such as the epoch.
        run_id: The other run.
    """
    numbers = dict(_numbers(figures))
    _attempt(
        "figures", lambda run: mlflow.log_metrics(numbers, step=step, run_id=run), run_id=run_id
    )


def _numbers(figures: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield re.sub(r"[^\w./ -]", "_", f"{prefix}{name}"), float(value)


def log_curves(curves: Mapping[str, Sequence[float]]) -> None:
    """Log what changed with every epoch of a training, from epoch 1, to the current run."""
    now = int(time() * 1000)
    points = [
        Metric(name, value, now, epoch)
        for name, values in curves.items()
        for epoch, value in enumerate(values, 1)
    ]

    def log_points(run: str) -> None:
        for start in range(0, len(points), _METRICS_AT_ONCE):
            MlflowClient().log_batch(run, metrics=points[start : start + _METRICS_AT_ONCE])

    _attempt("curves", log_points)


def log_file(path: Path) -> None:
    """Log a file to the current run."""
    _attempt(path.name, lambda run: MlflowClient().log_artifact(run, str(path)))


def log_text(text: str, name: str) -> None:
    """Log a text to the current run as a file of this name."""
    _attempt(name, lambda run: MlflowClient().log_text(run, text, name))


def log_data(description: Mapping[str, object], run_id: str | None = None) -> None:
    """Log what a job read, or built, as an MLflow dataset of the current run, or of another.

    Args:
        description: `manifest`, `ds` (or None), `rows` and `digest`, at most 36 characters, as
            `jobs.manifest.describe_data` gives.
        run_id: The other run.
    """
    manifest, ds = str(description["manifest"]).rstrip("/"), description["ds"]
    path = without_passwords(manifest if ds is None else f"{manifest}/ds={ds}")
    dataset = Dataset(
        name=path[-500:],
        digest=str(description["digest"]),
        source_type="spark",
        source=json.dumps({"path": path}),
        profile=json.dumps({"num_rows": description["rows"]}),
    )

    def log_input(run: str) -> None:
        job = MlflowClient().get_run(run).data.tags["job"]
        used = DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, job)])
        MlflowClient().log_inputs(run, datasets=[used])

    _attempt("data", log_input, run_id=run_id)


def link_model(name: str, version: str) -> None:
    """Record that the current run uses a registered version; MLflow's page of the run shows it."""

    def link(run: str) -> None:
        client = MlflowClient()
        client.set_tag(run, "model", f"models:/{name}/{version}")
        source = client.get_model_version(name, version).source or ""
        if source.startswith("models:/"):
            client.log_inputs(run, models=[LoggedModelInput(source.removeprefix("models:/"))])

    _attempt("model", link)
