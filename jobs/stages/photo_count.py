"""Count the photos that running tasks have done, seen from the driver."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TypeVar

from pyspark import AccumulatorParam, TaskContext
from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

from jobs.command.progress import show_count, show_progress

__all__ = ["PhotoCount", "show_photos"]

_SECONDS_BETWEEN_WRITES = 1.0

Photo = TypeVar("Photo")
Counts = dict[int, int]


class _Merge(AccumulatorParam[Counts]):
    def zero(self, value: Counts) -> Counts:  # noqa: ARG002
        return {}

    def addInPlace(self, value1: Counts, value2: Counts) -> Counts:  # noqa: N802
        value1.update(value2)
        return value1


@contextmanager
def show_photos(
    spark: SparkSession, label: str, total: int, folder: Path | None
) -> Iterator["PhotoCount"]:
    """Show how many photos the tasks of a Spark job have done, until the block ends.

    Under Spark Connect, which has no accumulators, the tasks are shown instead.

    Args:
        spark: The session.
        label: What is running.
        total: All photos.
        folder: As for `PhotoCount`.
    """
    done = PhotoCount(spark, folder)
    with (
        show_progress(spark, label)
        if is_remote()
        else show_count(label, "photos", total, done.so_far)
    ):
        yield done


class PhotoCount:
    """The photos of one Spark job, by partition. Under Spark Connect none is counted.

    Spark reports a task when it ends, and a task takes minutes. So a running task also writes its
    count to a file, about once a second. A partition counts once however many tasks work on it:
    one that is retried starts again at 0, and of two that run at once either count is right.

    Args:
        spark: The session.
        folder: A folder of this job, which driver and executors share. Where there is none, or it
            is not shared, only finished tasks count.
    """

    def __init__(self, spark: SparkSession, folder: Path | None) -> None:
        self._folder = folder
        self._finished = None if is_remote() else spark.sparkContext.accumulator({}, _Merge())
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def counted(self, photos: Iterable[Photo]) -> Iterator[Photo]:
        """Count photos as they pass; called by a task, once."""
        context = TaskContext.get()
        assert context is not None  # noqa: S101
        partition, done, written = context.partitionId(), 0, monotonic()
        self._write(partition, context.taskAttemptId(), 0)
        for photo in photos:
            yield photo
            done += 1
            if monotonic() - written > _SECONDS_BETWEEN_WRITES:
                written = monotonic()
                self._write(partition, context.taskAttemptId(), done)
        if self._finished is not None:
            self._finished.add({partition: done})

    def _write(self, partition: int, attempt: int, done: int) -> None:
        if self._folder is None:
            return
        with suppress(OSError):  # A count is not worth a task.
            written = self._folder / f"{attempt}.new"
            written.write_text(str(done), encoding="ascii")
            written.replace(self._folder / str(partition))

    def so_far(self) -> int:
        """The photos done; called by the driver, at any time."""
        finished: Counts = self._finished.value if self._finished is not None else {}
        running = 0
        for file in self._folder.glob("[0-9]*") if self._folder is not None else ():
            if file.suffix:
                continue
            with suppress(OSError):
                if int(file.name) in finished:
                    file.unlink()  # So that there are never more files than running tasks.
                else:
                    running += int(file.read_text(encoding="ascii"))
        return sum(list(finished.values())) + running
