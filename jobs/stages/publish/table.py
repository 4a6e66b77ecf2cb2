"""Publish a partition to a table, in one commit.

Rows are staged in the run's scratch folder and committed from there. Runs of one day do not wait
for each other: the format lets one commit win, or one follow the other, and a reader sees the rows
of one run.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from jobs.command.folders import Folder
from jobs.command.locations import Table
from jobs.command.session import parquet_reader
from jobs.stages.publish.base import Output, Partition
from jobs.tables.lake_table import LakeTable
from jobs.tables.opening import TableContract, find_table, open_table
from schemas.errors import DataContractError

__all__ = ["TableOutput"]


class TablePartition(Partition):
    """A partition that this run is about to replace.

    Args:
        table: The table.
        ds: The day.
    """

    def __init__(self, table: LakeTable, ds: str) -> None:
        self._table = table
        self._ds = ds
        self._rows: DataFrame | None = None

    def stage(self, rows: DataFrame, scratch: Folder) -> DataFrame:
        """Write the rows to scratch space; returns them as they were written."""
        folder = (scratch / "staged").uri
        rows.write.mode("overwrite").parquet(folder)
        self._rows = parquet_reader(rows.sparkSession).parquet(folder)
        return self._rows

    def publish(self, properties: Mapping[str, str]) -> str:
        """Commit the staged rows, then count what the commit holds."""
        assert self._rows is not None  # noqa: S101 - staged before
        rows = self._rows.withColumn("ds", F.lit(date.fromisoformat(self._ds)))
        version = self._table.replace(rows, _is_day(self._ds), properties)
        staged = rows.count()
        committed = self._table.read(version).where(_is_day(self._ds)).count()
        if committed != staged:
            raise DataContractError(
                f"{self._table.name}: version {version} has {committed} rows of {self._ds}, "
                f"{staged} were staged; roll the table back, and look who else writes to it"
            )
        return f"{self._table.name} version {version}"


class TableOutput(Output):
    """A table with a column `ds`.

    Args:
        spark: The session.
        name: The table.
        contract: What it has to be like.
    """

    def __init__(self, spark: SparkSession, name: Table, contract: TableContract) -> None:
        self._spark = spark
        self._name = name
        self._contract = contract

    @contextmanager
    def hold(self, ds: str, run_id: str) -> Iterator[TablePartition]:  # noqa: ARG002
        """Create the table, give it new columns, or refuse it, before any work is done."""
        table = open_table(self._spark, self._name, self._contract)
        yield TablePartition(table, ds)

    def read(self, spark: SparkSession, ds: str) -> DataFrame:
        """Read the partition as of the current version."""
        table = find_table(spark, self._name)
        rows = table.read(table.version()).where(_is_day(ds)).drop("ds") if table else None
        if rows is None or rows.isEmpty():
            raise DataContractError(f"{self.describe(ds)}: nothing is published there")
        return rows

    def day_before(self, spark: SparkSession, ds: str) -> str | None:
        """The last day before this one that is published, or None."""
        table = find_table(spark, self._name)
        if table is None:
            return None
        rows = table.read(table.version())
        (day,) = rows.where(F.col("ds") < F.lit(date.fromisoformat(ds))).agg(F.max("ds")).collect()
        return day[0] and str(day[0])

    def describe(self, ds: str) -> str:
        """The table's name and the day."""
        return f"{self._name} ds={ds}"


def _is_day(ds: str) -> Column:
    return F.col("ds") == F.lit(date.fromisoformat(ds))
