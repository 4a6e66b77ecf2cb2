"""Progress of Spark stages and of training: a bar on a terminal, periodic log lines elsewhere."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from math import ceil
from time import monotonic
from typing import Any, TypeVar

from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["Steps", "show_count", "show_progress", "show_steps", "watch"]

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_LOG_EVERY_SECONDS = 15.0
_SPEED_OVER_SECONDS = 60.0

Item = TypeVar("Item")


@contextmanager
def show_progress(spark: SparkSession, label: str) -> Iterator[None]:
    """Show how many tasks of the active Spark stages are done, until the block ends."""

    def update(progress: Progress, task: Task) -> None:
        completed, total = count()
        progress.update(task.id, completed=completed, total=total or None)

    columns = (MofNCompleteColumn(), TextColumn("tasks"), TimeElapsedColumn())
    with (
        _reported_tasks(spark) if is_remote() else _tracked_tasks(spark) as count,
        _polled(label, None, columns, update, lambda task: _m_of_n(task, "tasks")),
    ):
        yield


@contextmanager
def _tracked_tasks(spark: SparkSession) -> Iterator[Callable[[], tuple[int, int]]]:
    """Count the completed tasks of the active stages, and all of them."""
    tracker = spark.sparkContext.statusTracker()

    def count() -> tuple[int, int]:
        stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
        return (
            sum(stage.numCompletedTasks for stage in stages if stage),
            sum(stage.numTasks for stage in stages if stage),
        )

    yield count


@contextmanager
def _reported_tasks(spark: SparkSession) -> Iterator[Callable[[], tuple[int, int]]]:
    """Count the same where Spark Connect reports them."""
    reported = (0, 0)

    def report(stages: Iterable[Any] | None, **_: object) -> None:
        nonlocal reported
        active = [stage for stage in stages or () if not stage.done]
        reported = (
            sum(stage.num_completed_tasks for stage in active),
            sum(stage.num_tasks for stage in active),
        )

    spark.registerProgressHandler(report)
    try:
        yield lambda: reported
    finally:
        spark.removeProgressHandler(report)


@contextmanager
def show_count(label: str, unit: str, total: int, count: Callable[[], int]) -> Iterator[None]:
    """Show how much is done, how much a second, and the time left, until the block ends.

    Args:
        label: What is running.
        unit: What is counted, in the plural.
        total: All of them.
        count: Returns how many are done; called about twice a second, on another thread.
    """

    def update(progress: Progress, task: Task) -> None:
        progress.update(task.id, completed=count())

    def line(task: Task) -> str:
        return ", ".join(filter(None, [_m_of_n(task, unit), _speed(task), _time_left(task)]))

    columns = (
        MofNCompleteColumn(),
        TextColumn(unit),
        _SpeedColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    started = monotonic()
    with _polled(label, total, columns, update, line):
        yield
    seconds = monotonic() - started
    log.info("%s: %d %s in %.1f s, %.1f a second", label, count(), unit, seconds, total / seconds)


@contextmanager
def _polled(
    label: str,
    total: int | None,
    columns: Iterable[ProgressColumn],
    update: Callable[[Progress, Task], None],
    line: Callable[[Task], str],
) -> Iterator[None]:
    """Update a bar, or log a line now and then where there is no terminal, on another thread."""
    ended = threading.Event()
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        speed_estimate_period=_SPEED_OVER_SECONDS,
    )

    def poll() -> None:
        logged = monotonic()
        while not ended.wait(_POLL_SECONDS):
            update(bar, task)
            if bar.disable and monotonic() - logged > _LOG_EVERY_SECONDS:
                logged = monotonic()
                log.info("%s: %s", label, line(task))

    with bar:
        bar.add_task(label, total=total)
        [task] = bar.tasks
        thread = threading.Thread(target=poll, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class _SpeedColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(_speed(task), "progress.data.speed")


def _m_of_n(task: Task, unit: str) -> str:
    return f"{int(task.completed)} of {int(task.total or 0)} {unit}"


def _speed(task: Task) -> str:
    return f"{task.speed:.1f} a second" if task.speed else ""


def _time_left(task: Task) -> str:
    left = task.time_remaining
    return f"{timedelta(seconds=ceil(left))} left" if left else ""


class Steps:
    """Counts the completed steps of a training run and shows them; see `show_steps`."""

    def __init__(self, label: str, unit: str, total: int, done: int, bar: Progress | None) -> None:
        self._label, self._unit, self._total = label, unit, total
        self._done, self._bar = done, bar
        self._task = None if bar is None else bar.add_task(label, total=total, completed=done)
        self._logged = monotonic()

    def advance(self) -> None:
        """Count one more step as done."""
        self._done += 1
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done)
        elif monotonic() - self._logged > _LOG_EVERY_SECONDS:
            self._logged = monotonic()
            log.info("%s: %d of %d %s", self._label, self._done, self._total, self._unit)

    def say(self, line: str) -> None:
        """Print a line above the bar, or log it."""
        if self._bar is None:
            log.info("%s: %s", self._label, line)
        else:
            self._bar.console.print(line, highlight=False, markup=False)


@contextmanager
def show_steps(label: str, total: int, done: int = 0, unit: str = "steps") -> Iterator[Steps]:
    """Show how many steps of a training run are done, until the block ends.

    Args:
        label: What is running.
        total: Steps of the whole run.
        done: Steps done before, where the run is resumed from a checkpoint.
        unit: The name of a step, in the plural.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Steps(label, unit, total, done, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield Steps(label, unit, total, done, bar)


def watch(items: Iterable[Item], label: str, unit: str, total: int) -> Iterator[Item]:
    """Yield the items and show how many are done; see `seer_model.training.watch.Watch`."""
    log.info("%s: %d %s", label, total, unit)
    with show_steps(label, total, unit=unit) as steps:
        for item in items:
            yield item
            steps.advance()
