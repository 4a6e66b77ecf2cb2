"""Commits to a table: two at once, one whose answer is lost, one that others get in the way of."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.readwriter import DataFrameWriterV2

from jobs.command.folders import LocalFolder
from jobs.command.locations import Table
from jobs.stages.publish.opening import CATEGORIES_TABLE, open_output
from jobs.tables.lake_table import LakeTable
from jobs.tables.opening import open_table
from schemas.categories import CATEGORIES
from schemas.errors import PartitionBusy
from tests.spark.tables.conftest import Lake
from tests.support.manifest_rows import DS

pytestmark = [pytest.mark.spark, pytest.mark.lake]

ROWS = 20


def rows_of(lake: Lake, run: str) -> DataFrame:
    """Rows of a run; columns that may be null are."""
    values = {
        "decision": F.lit("rejected"),
        "candidates": F.array().cast("array<struct<category_id: string, score: float>>"),
        "images_used": F.lit(0),
        "images_rejected": F.lit(1),
        "categorized_at": F.current_timestamp(),
    }
    required = [f.name for f in CATEGORIES if not f.nullable and f.name != "listing_id"]
    return lake.spark.range(ROWS, numPartitions=2).select(
        F.col("id").cast("string").alias("listing_id"),
        *[values.get(name, F.lit(run)).alias(name) for name in required],
    )


def table_of(lake: Lake) -> LakeTable:
    return open_table(lake.spark, Table(lake.flag("categories")), CATEGORIES_TABLE)


def publish(lake: Lake, run: str, folder: Path, together: threading.Barrier | None = None) -> str:
    """Publish a day's rows; with a barrier, commit when all who share it are ready to."""
    output = open_output(lake.spark, Table(lake.flag("categories")), CATEGORIES_TABLE)
    with output.hold(DS, run) as partition:
        partition.stage(rows_of(lake, run), LocalFolder(folder / run))
        if together is not None:
            together.wait(timeout=60)
        return partition.publish({"seer.run-id": run})


def runs_seen(lake: Lake) -> set[tuple[object, ...]]:
    """The runs whose rows a reader sees, with how many."""
    return set(lake.sql("SELECT run_id, count(*) FROM {categories} GROUP BY run_id"))


@pytest.mark.slow
def test_of_two_that_publish_at_once_one_is_seen_whole(lake: Lake, tmp_path: Path) -> None:
    table_of(lake)
    for turn in range(4):
        together = threading.Barrier(2)
        runs = [f"{turn} {name}" for name in "ab"]
        with ThreadPoolExecutor(2) as pool:
            started = [pool.submit(publish, lake, run, tmp_path, together) for run in runs]
        refused = [run for run, one in zip(runs, started, strict=True) if one.exception()]
        for one in started:
            assert one.exception() is None or isinstance(one.exception(), PartitionBusy)
        assert len(refused) < 2
        ((seen, count),) = runs_seen(lake)
        assert count == ROWS
        assert seen in set(runs) - set(refused)


def test_a_commit_whose_answer_is_lost_is_recognised(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    publish(lake, "before", tmp_path)
    overwrite = DataFrameWriterV2.overwrite

    def lose_the_answer(writer: DataFrameWriterV2, condition: object) -> None:
        overwrite(writer, condition)
        raise PySparkException("Connection reset")

    with monkeypatch.context() as patch:
        patch.setattr(DataFrameWriterV2, "overwrite", lose_the_answer)
        published = publish(lake, "lost", tmp_path)
    assert "the commit was made, though its answer was an error: Connection reset" in caplog.text
    assert published.startswith(f"{lake.flag('categories')} version ")
    assert runs_seen(lake) == {("lost", ROWS)}


def test_a_commit_that_fails_leaves_what_was_there(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    publish(lake, "before", tmp_path)

    def fail(writer: DataFrameWriterV2, condition: object) -> None:
        raise PySparkException("Connection refused")

    monkeypatch.setattr(DataFrameWriterV2, "overwrite", fail)
    with pytest.raises(PySparkException, match="Connection refused"):
        publish(lake, "failed", tmp_path)
    assert runs_seen(lake) == {("before", ROWS)}


def test_a_reader_keeps_the_version_that_it_began_with(lake: Lake, tmp_path: Path) -> None:
    publish(lake, "before", tmp_path)
    table = table_of(lake)
    held = table.read(table.version())
    publish(lake, "after", tmp_path)
    assert {row["run_id"] for row in held.collect()} == {"before"}
    assert runs_seen(lake) == {("after", ROWS)}
