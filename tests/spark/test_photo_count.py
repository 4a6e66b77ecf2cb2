"""Photos are counted while a task runs, and once however often it runs."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark import TaskContext
from pyspark.sql import SparkSession

from jobs.stages import photo_count
from jobs.stages.photo_count import PhotoCount

pytestmark = pytest.mark.spark


def test_photos_of_running_and_retried_tasks(spark: SparkSession, tmp_path: Path) -> None:
    reached, go_on = tmp_path / "reached", tmp_path / "go on"
    for pipe in (reached, go_on):
        os.mkfifo(pipe)
    done = PhotoCount(spark, tmp_path / "counts")

    def task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None

        def photos() -> Iterator[int]:
            yield from range(3)
            if context.partitionId() == 0 and context.attemptNumber() == 0:
                raise RuntimeError("the first attempt fails, and its photos do not count")
            if context.partitionId() == 1:
                reached.write_text("three photos", encoding="ascii")
                go_on.read_text(encoding="ascii")
            yield from range(2)

        before, photo_count._SECONDS_BETWEEN_WRITES = photo_count._SECONDS_BETWEEN_WRITES, -1
        for batch in batches:
            assert len(list(done.counted(photos()))) == 5
            yield batch
        photo_count._SECONDS_BETWEEN_WRITES = before

    assert done.so_far() == 0
    with ThreadPoolExecutor() as pool:
        running = pool.submit(spark.range(2, numPartitions=2).mapInArrow(task, "id long").collect)
        reached.read_text(encoding="ascii")
        # Three of the second partition, and as many as the first has by now.
        assert 3 <= done.so_far() <= 8
        go_on.write_text("", encoding="ascii")
        running.result()
    assert done.so_far() == 10
    assert [file for file in (tmp_path / "counts").iterdir() if not file.suffix] == []


def test_a_partition_counts_once_and_its_file_is_optional(
    spark: SparkSession, tmp_path: Path
) -> None:
    done = PhotoCount(spark, tmp_path / "counts")
    for _ in range(2):  # As of two tasks that speculation runs on one partition.
        done._finished.add({4: 70})
    (tmp_path / "counts" / "4").write_text("69", encoding="ascii")
    (tmp_path / "counts" / "5").write_text("7", encoding="ascii")
    (tmp_path / "counts" / "5.new").write_text("", encoding="ascii")
    assert done.so_far() == done.so_far() == 77
    (tmp_path / "counts" / "5").unlink()
    assert done.so_far() == 70


def test_without_a_folder_finished_tasks_count(spark: SparkSession) -> None:
    done = PhotoCount(spark, None)

    def task(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        assert len(list(done.counted(range(7)))) == 7
        yield from batches

    spark.range(2, numPartitions=2).mapInArrow(task, "id long").collect()
    assert done.so_far() == 14
