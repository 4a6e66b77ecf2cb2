"""Progress of a Spark job: a bar on a terminal, a log line now and then elsewhere."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["show_progress"]

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
