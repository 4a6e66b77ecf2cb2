"""Progress of a Spark job or a training: a bar on a terminal, a log line now and then elsewhere."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from pyspark.sql import SparkSession
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["Steps", "show_progress", "show_steps"]

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_LOG_EVERY_SECONDS = 15.0


@contextmanager
def show_progress(spark: SparkSession, label: str) -> Iterator[None]:
    """Show how many tasks of the running Spark stages are done until the block ends."""
    done = threading.Event()
    console = Console(stderr=True)
    watch = _draw if console.is_terminal else _log
    thread = threading.Thread(target=watch, args=(spark, label, done, console), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _tasks(spark: SparkSession) -> tuple[int, int]:
    tracker = spark.sparkContext.statusTracker()
    stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
    return (
        sum(stage.numCompletedTasks for stage in stages if stage),
        sum(stage.numTasks for stage in stages if stage),
    )


def _draw(spark: SparkSession, label: str, done: threading.Event, console: Console) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tasks"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(label, total=None)
        while not done.wait(_POLL_SECONDS):
            completed, total = _tasks(spark)
            progress.update(bar, completed=completed, total=total or None)


def _log(spark: SparkSession, label: str, done: threading.Event, _console: Console) -> None:
    while not done.wait(_LOG_EVERY_SECONDS):
        completed, total = _tasks(spark)
        log.info("%s: %d of %d tasks", label, completed, total)


class Steps:
    """The steps of a training that are done so far; see `show_steps`."""

    def __init__(self, label: str, total: int, done: int, bar: Progress | None) -> None:
        self._label, self._total, self._done, self._bar = label, total, done, bar
        self._task = None if bar is None else bar.add_task(label, total=total, completed=done)
        self._logged = monotonic()

    def advance(self) -> None:
        """One more is done."""
        self._done += 1
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done)
        elif monotonic() - self._logged > _LOG_EVERY_SECONDS:
            self._logged = monotonic()
            log.info("%s: %d of %d steps", self._label, self._done, self._total)

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._bar is None:
            log.info("%s: %s", self._label, line)
        else:
            self._bar.console.print(line, highlight=False, markup=False)


@contextmanager
def show_steps(label: str, total: int, done: int = 0) -> Iterator[Steps]:
    """Show how many steps of a training are done until the block ends."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Steps(label, total, done, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield Steps(label, total, done, bar)
