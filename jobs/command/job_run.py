"""The run of a job in this process: what it reads, writes and counts, and how it ends.

Jobs add to the run as they go. `--metrics-file` and an OpenLineage backend tell of it, each only
where somebody asked for it; outside `jobs.command.settings.run_job` there is no run, and nothing is
kept.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import SettingsError

if TYPE_CHECKING:
    import pyarrow as pa

    from jobs.command.lineage import Lineage

__all__ = [
    "Dataset",
    "Ending",
    "JobRun",
    "adds_to",
    "events_lost",
    "observe",
    "reads",
    "reads_model",
    "reports",
    "writes",
]

log = logging.getLogger(__name__)

_BACKEND = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE__TRANSPORT")


@dataclass(frozen=True)
class Dataset:
    """Data that a job reads or writes.

    Attributes:
        where: A path on a local or mounted file system (`Path`), a path that Spark reads,
            `table:catalog.namespace.name`, `models:/name[@alias]`, or as in `--backbone`.
        ds: The partition, or None for all.
        rows: How many rows of it, where that was counted.
        columns: Its columns, where a contract says them.
        version: The model's version, or a digest.
    """

    where: str | Path
    ds: str | None = None
    rows: int | None = None
    columns: "pa.Schema | None" = None
    version: str | None = None


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        exit_code: That of the process; 0 on success, 130 if interrupted.
        message: The error in one line, without passwords; None on success.
        trace: The traceback of an unforeseen error, without passwords.
    """

    exit_code: int
    message: str | None = None
    trace: str | None = None


@dataclass
class JobRun:
    """A run of a job; see the module.

    Attributes:
        job: The job's name, such as `categorize_listings`.
        ds: The partition it is about, if it is about one.
        started_at: When it started.
        inputs: What it has read so far.
        outputs: What it has written so far.
        figures: The report; empty until it is written.
        lost: What the OpenLineage backend was not told, one line an event.
        ending: Set once the run has ended.
    """

    job: str
    ds: date | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    inputs: list[Dataset] = field(default_factory=list)
    outputs: list[Dataset] = field(default_factory=list)
    figures: Mapping[str, Any] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    ending: Ending | None = None


_current: ContextVar[JobRun | None] = ContextVar("job_run", default=None)


def reads(where: object, **details: Any) -> None:
    """Record that the current run reads data, unless it is None: the attributes of `Dataset`."""
    if (run := _current.get()) and where is not None:
        run.inputs.append(_dataset(where, details))


def writes(where: object, **details: Any) -> None:
    """Record that the current run has written data: the attributes of `Dataset`."""
    if run := _current.get():
        run.outputs.append(_dataset(where, details))


def adds_to(where: object, **details: Any) -> None:
    """Record that the current run reads data, unless it is None, and has added to it."""
    if where is not None:
        reads(where)
        writes(where, **details)


def reads_model(uri: str, version: str) -> None:
    """Record that the current run reads a model or backbone.

    An alias is data of its own, which a promotion writes: so it leads from a training to its users.

    Args:
        uri: As in the flags: `models:/name@alias`, `models:/name/3`, `zoo:NAME`, a folder …
        version: The version or digest that it was resolved to.
    """
    if name := re.match("models:/[^/]+", uri):
        uri = name[0]  # Without the version.
    source = re.match("(models|runs|zoo|timm):", uri)
    reads(uri if source else Path(uri.removeprefix("vissl:")), version=version)


def _dataset(where: object, details: Mapping[str, Any]) -> Dataset:
    return Dataset(where if isinstance(where, Path) else str(where), **details)


def reports(figures: Mapping[str, Any]) -> None:
    """Record the report of the current run."""
    if run := _current.get():
        run.figures = figures


def events_lost() -> list[str]:
    """What the OpenLineage backend was not told of the current run so far, one line an event."""
    run = _current.get()
    return list(run.lost) if run else []


@contextmanager
def observe(
    job: str, ds: date | None, metrics_file: Path | None, explain: Callable[[BaseException], Ending]
) -> Iterator[None]:
    """Make the block the current run, and tell of it those who asked.

    Args:
        job: The job's name.
        ds: The partition it is about, if it is about one.
        metrics_file: Where to write the run's figures for Prometheus, or None.
        explain: Says how the run ended if the block raised this error.

    Raises:
        SettingsError: The folder of the metrics file cannot be made; the block was not entered.
    """
    if metrics_file is not None:
        try:
            metrics_file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"--metrics-file {metrics_file}: {error.strerror}") from error
    run = JobRun(job, ds)
    token = _current.set(run)
    lineage = _open_lineage(run)
    try:
        yield
        run.ending = Ending(0)
    except BaseException as error:
        run.ending = explain(error)
        raise
    finally:
        _current.reset(token)
        if lineage is not None:
            lineage.end(run)
        if metrics_file is not None:
            _write_metrics(run, metrics_file)


def _open_lineage(run: JobRun) -> "Lineage | None":
    """Tell the OpenLineage backend of the run, if the environment names a backend."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").lower() == "true":
        return None
    if not any(name.startswith(_BACKEND) for name in os.environ):
        return None
    try:
        from jobs.command.lineage import Lineage  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        run.lost.append(f"START: {error}; pip install 'seer-categories[lineage]'")
        log.warning("no lineage: %s", run.lost[0])
        return None
    return Lineage.start(run)


def _write_metrics(run: JobRun, path: Path) -> None:
    from jobs.command.metrics import write_metrics  # noqa: PLC0415 - for those who ask for it

    try:
        write_metrics(run, path)
    except OSError as error:  # The job's work is done, and an old file shows its age.
        log.warning("--metrics-file %s not written: %s", path, error.strerror)
