"""MLflow runs: a job's parameters, data, model, figures and files.

A tracking server that is down stops a job before its work begins. One that goes down later stops
nothing: logging is best effort, what fails is dropped with a warning, and `logging_failure` returns
the first failure for the job's report.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, Metric
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from schemas.errors import SettingsError, without_passwords
from seer_model.processes import has_ended, process_mark
from seer_model.tracking.code_version import GIT_COMMIT, code_version
from seer_model.tracking.database import create_database, sqlite_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "EXPERIMENT",
    "add_to_name",
    "connect",
    "link_model",
    "log_curves",
    "log_data",
    "log_figures",
    "log_file",
    "log_plot",
    "log_text",
    "logging_failure",
    "one_line",
    "tracked_run",
    "tracking_address",
]

log = logging.getLogger(__name__)

EXPERIMENT = "listing-categories"

# Tag and value of MLflow's pages, for experiments on models that are trained.
_KIND, _TRAINING = "mlflow.experimentKind", "custom_model_development"
_PROCESS = "process"
_METRICS_AT_ONCE = 1000
_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_SECONDS_TO_ANSWER = 10
_SECONDS_WITHOUT_SERVER = 60


@dataclass
class _Failures:
    """Logging failures of the current run.

    Attributes:
        first: The first one, in words.
        retry_at: Monotonic time before which no server is asked again.
    """

    first: str | None = None
    retry_at: float = 0.0


_failures = _Failures()


def connect(tracking_uri: str | None) -> str:
    """Connect this process to a tracking server or database, and check that it answers.

    Args:
        tracking_uri: None for MLFLOW_TRACKING_URI; if that is unset, `mlflow.db` in the working
            directory.

    Returns:
        The URI connected to.

    Raises:
        SettingsError: The URI is not one of MLflow's, or nothing answers there.
    """
    tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # MLflow would print the run's URL with the password in it.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for noisy in ("alembic", "mlflow", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        mlflow.set_tracking_uri(tracking_uri)
        mlflow.set_registry_uri(tracking_uri)
        with _short_timeout():
            if file := sqlite_file(tracking_uri):
                create_database(file)
            _create_experiment(tracking_uri)
            _show_as_training(mlflow.set_experiment(EXPERIMENT))
    except Exception as error:
        raise SettingsError(
            f"no MLflow at {without_passwords(tracking_uri)}: {one_line(error)}"
        ) from error
    return tracking_uri


def tracking_address() -> str:
    """Return the server or database connected to, without passwords, a SQLite file by its path."""
    tracking_uri = mlflow.get_tracking_uri()
    file = sqlite_file(tracking_uri)
    return without_passwords(tracking_uri) if file is None else f"sqlite:///{file.absolute()}"


def _create_experiment(tracking_uri: str) -> None:
    """Create the experiment of the jobs unless it exists, perhaps by another job at this moment."""
    if mlflow.get_experiment_by_name(EXPERIMENT) is not None:
        return
    file = sqlite_file(tracking_uri)
    # Beside a SQLite file; a server decides for itself.
    artifacts = None if file is None else (file.resolve().parent / "mlruns").as_uri()
    try:
        mlflow.create_experiment(EXPERIMENT, artifact_location=artifacts)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise


def _show_as_training(experiment: mlflow.entities.Experiment) -> None:
    """Have MLflow's pages open an experiment on its runs, not as one of language models.

    Unless a person has chosen otherwise: what the pages have only inferred ends in `_inferred`.
    """
    if experiment.tags.get(_KIND, "_inferred").endswith("_inferred"):
        with suppress(MlflowException):  # A server may not let everybody.
            MlflowClient().set_experiment_tag(experiment.experiment_id, _KIND, _TRAINING)


@contextmanager
def _short_timeout() -> Iterator[None]:
    """Time MLflow's requests out after seconds, not minutes, unless the environment sets it."""
    if _TIMEOUT in os.environ:
        yield
        return
    os.environ[_TIMEOUT] = str(_SECONDS_TO_ANSWER)
    try:
        yield
    finally:
        del os.environ[_TIMEOUT]


def one_line(error: BaseException) -> str:
    """Summarize an error in one line without passwords; the root cause if no server answered."""
    if _is_unreachable(error):
        while cause := error.__cause__ or error.__context__:
            error = cause
    text = str(error).strip() or type(error).__name__
    return without_passwords(text.splitlines()[0])


def _is_unreachable(error: BaseException) -> bool:
    """Whether no server answered: MLflow wraps the exceptions of requests, which are OSErrors."""
    cause = error.__cause__ or error.__context__
    return isinstance(cause, OSError) and getattr(cause, "response", None) is None


@contextmanager
def tracked_run(job: str, parameters: Mapping[str, object]) -> Iterator[str]:
    """Track a job's work as an MLflow run; yields its id. It ends as finished, failed or killed.

    Its name is the job and the parameter `ds`, if that is set; `add_to_name` adds to it. Its tags
    name the code that ran (see `seer_model.tracking.code_version`).

    Raises:
        SettingsError: MLflow does not answer; the block was not entered.
    """
    _failures.first, _failures.retry_at = None, 0.0
    code = code_version()
    name = f"{job} {ds}" if (ds := parameters.get("ds")) else job
    mark = process_mark()
    process = {_PROCESS: mark} if mark else {}
    try:
        with _short_timeout():
            run = mlflow.start_run(run_name=name, tags={"job": job, **process, **code})
    except Exception as error:
        raise SettingsError(f"MLflow could not start a run: {one_line(error)}") from error
    if GIT_COMMIT not in code:
        _best_effort("code version", lambda _: _forget_main_script(run))
    _best_effort("runs that were killed", lambda _: _end_killed_runs(run, job))
    given = {name: without_passwords(str(value))[:500] for name, value in parameters.items()}
    _best_effort("parameters", lambda _: mlflow.log_params(given))
    status = "FAILED"
    try:
        yield run.info.run_id
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        _failures.retry_at = 0.0
        _best_effort(f"status {status}", lambda _: mlflow.end_run(status))


def _end_killed_runs(run: mlflow.ActiveRun, job: str) -> None:
    """Mark the job's runs as killed whose process could not: it has ended without a word."""
    running = MlflowClient().search_runs(
        [run.info.experiment_id], f"attributes.status = 'RUNNING' and tags.job = '{job}'"
    )
    for other in running:
        if has_ended(other.data.tags.get(_PROCESS, "")):
            MlflowClient().set_terminated(other.info.run_id, "KILLED")
            log.info("MLflow run %s of %s was killed; marked so", other.info.run_id, job)


def _forget_main_script(run: mlflow.ActiveRun) -> None:
    """Delete MLflow's own commit tags: they are of the main script's checkout, not of this code."""
    for tag in run.data.tags:
        if tag.startswith("mlflow.source.git."):
            MlflowClient().delete_tag(run.info.run_id, tag)


def _best_effort(what: str, action: Callable[[str], object], run_id: str | None = None) -> None:
    """Log something to a run, by default the current one; warn if that fails.

    Does nothing without a run, and for a while after a server was unreachable: each attempt would
    wait for the timeout.
    """
    run = mlflow.active_run()
    run_id = run_id or (run.info.run_id if run else None)
    if run_id is None or monotonic() < _failures.retry_at:
        return
    try:
        with _short_timeout():
            action(run_id)
    except Exception as error:
        problem = f"{what} not logged: {one_line(error)}"
        _failures.first = _failures.first or problem
        if _is_unreachable(error):
            _failures.retry_at = monotonic() + _SECONDS_WITHOUT_SERVER
        log.warning("MLflow run %s: %s; continuing without it", run_id, problem)


def logging_failure() -> str | None:
    """Return what the current run, or the last one, failed to log first; None if nothing."""
    return _failures.first


def log_figures(
    figures: Mapping[str, object], step: int | None = None, run_id: str | None = None
) -> None:
    """Log numbers as metrics.

    Args:
        figures: Values by name; other values than numbers are left out, and the numbers of a nested
            mapping are named `outer.inner`.
        step: The step, such as the epoch, of figures that change over time.
        run_id: The run; by default the current one.
    """
    numbers = dict(_numbers(figures))
    _best_effort(
        "figures", lambda run: mlflow.log_metrics(numbers, step=step, run_id=run), run_id=run_id
    )


def _numbers(figures: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield re.sub(r"[^\w./ -]", "_", f"{prefix}{name}"), float(value)


def log_curves(curves: Mapping[str, Sequence[float]]) -> None:
    """Log a training's per-epoch values, from epoch 1, to the current run."""
    now = int(time() * 1000)
    points = [
        Metric(name, value, now, epoch)
        for name, values in curves.items()
        for epoch, value in enumerate(values, 1)
    ]

    def log_points(run: str) -> None:
        for start in range(0, len(points), _METRICS_AT_ONCE):
            MlflowClient().log_batch(run, metrics=points[start : start + _METRICS_AT_ONCE])

    _best_effort("curves", log_points)


def log_file(path: Path) -> None:
    """Log a file to the current run."""
    _best_effort(path.name, lambda run: MlflowClient().log_artifact(run, str(path)))


def log_text(text: str, name: str) -> None:
    """Log a text to the current run as a file of that name."""
    _best_effort(name, lambda run: MlflowClient().log_text(run, text, name))


def log_data(description: Mapping[str, object], run_id: str | None = None) -> None:
    """Log the data that a job read, or built, as an MLflow dataset.

    Args:
        description: `manifest`, `ds` (or None), `rows` and `digest` (at most 36 characters), as
            `jobs.stages.fingerprint.describe_data` returns them.
        run_id: The run; by default the current one.
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

    _best_effort("data", log_input, run_id=run_id)


def log_plot(figure: "Figure", name: str) -> None:
    """Log a plot to the current run as a PNG of that name."""
    _best_effort(name, lambda run: MlflowClient().log_figure(run, figure, name))


def add_to_name(text: str) -> None:
    """Add what the current run was about to its name, such as a model's version."""

    def rename(run: str) -> None:
        client = MlflowClient()
        client.update_run(run, name=f"{client.get_run(run).info.run_name} {text}")

    _best_effort("name", rename)


def link_model(name: str, version: str) -> None:
    """Record the registered version that the current run uses; MLflow shows it with the run."""
    add_to_name(f"{name} v{version}")

    def link(run: str) -> None:
        client = MlflowClient()
        client.set_tag(run, "model", f"models:/{name}/{version}")
        source = client.get_model_version(name, version).source or ""
        if source.startswith("models:/"):
            client.log_inputs(run, models=[LoggedModelInput(source.removeprefix("models:/"))])

    _best_effort("model", link)
