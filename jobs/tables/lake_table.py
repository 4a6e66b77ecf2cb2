"""A table of one of Spark's catalogs, in a format with atomic commits.

A commit carries properties, among them an identifier of its own. If the answer to a commit is lost
(a time-out, a restart of the catalog), the table's history says whether it was made.
"""

import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.readwriter import DataFrameWriterV2

from jobs.command.locations import Table
from jobs.command.spark_errors import root_cause
from schemas.errors import DataContractError, PartitionBusy

__all__ = ["COMMIT_ID", "LakeTable"]

log = logging.getLogger(__name__)

COMMIT_ID = "seer.commit-id"
"""The property that identifies a commit."""


class LakeTable(ABC):
    """A table that exists; `jobs.tables.opening` opens one.

    Attributes:
        name: The table's name.
    """

    conflicts: tuple[str, ...]
    """Names of the exceptions by which the format refuses a commit for the sake of another."""

    def __init__(self, spark: SparkSession, name: Table) -> None:
        self.name = name
        self._spark = spark

    @property
    def columns(self) -> pa.Schema:
        """The columns of the table's current version."""
        return to_arrow_schema(self._spark.table(self.name.sql).schema)

    def version(self) -> str | None:
        """The current version, or None if nothing was ever committed.

        A catalog may keep the table in memory, and not see the commits of others.
        """
        self._sql(f"REFRESH TABLE {self.name.sql}")
        return self._current_version()

    def read(self, version: str | None) -> DataFrame:
        """The rows of a version, whatever is committed meanwhile.

        Args:
            version: From `version`.
        """
        if version is None:
            return self._spark.table(self.name.sql).limit(0)
        return self._sql(f"SELECT * FROM {self.name.sql} VERSION AS OF {version}")

    def append(self, rows: DataFrame, properties: Mapping[str, str]) -> None:
        """Add rows in one commit, or in none if there are none. Errors are those of `replace`."""
        self._commit(rows, properties, lambda writer: writer.append())

    def replace(self, rows: DataFrame, where: Column, properties: Mapping[str, str]) -> str:
        """Replace the rows that a condition holds for, in one commit.

        Args:
            rows: All columns that may not be null, and any others of the table.
            where: The condition, on columns of the partitioning.
            properties: For the history of the table.

        Returns:
            The new version.

        Raises:
            PartitionBusy: Another commit got in the way; the table is as that left it.
        """
        version = self._commit(rows, properties, lambda writer: writer.overwrite(where))
        if version is None:
            raise DataContractError(f"{self.name}: its history lacks the commit just made")
        return version

    def _commit(
        self,
        rows: DataFrame,
        properties: Mapping[str, str],
        write: Callable[[DataFrameWriterV2], None],
    ) -> str | None:
        """Write in one commit; returns its version, or None if the history has no such commit."""
        commit = uuid.uuid4().hex
        writer = self._complete(rows).writeTo(self.name.sql)
        try:
            write(self._with_properties(writer, {**properties, COMMIT_ID: commit}))
        except (PySparkException, Py4JJavaError) as error:
            version = self._version_of(commit)
            if version is None and any(name in str(error) for name in self.conflicts):
                raise PartitionBusy(
                    f"{self.name}: another run committed at the same time; run again"
                ) from error
            if version is None:
                raise
            log.warning(
                "%s: the commit was made, though its answer was an error: %s",
                *(self.name, root_cause(error)),
            )
            return version
        return self._version_of(commit)

    def _version_of(self, commit: str) -> str | None:
        self._sql(f"REFRESH TABLE {self.name.sql}")
        return self._find_version(commit)

    def _complete(self, rows: DataFrame) -> DataFrame:
        """The table's columns, null where the rows have none."""
        return rows.select(
            *(
                F.col(field.name) if field.name in rows.columns else F.lit(None).alias(field.name)
                for field in self._spark.table(self.name.sql).schema
            )
        )

    def _sql(self, statement: str) -> DataFrame:
        return self._spark.sql(statement)

    @abstractmethod
    def _current_version(self) -> str | None: ...

    @abstractmethod
    def _find_version(self, commit: str) -> str | None:
        """The version that a commit made, or None if it was not made."""

    @abstractmethod
    def _with_properties(
        self, writer: DataFrameWriterV2, properties: Mapping[str, str]
    ) -> DataFrameWriterV2: ...

    @abstractmethod
    def maintain(self) -> dict[str, Any]:
        """Merge small files and remove old versions, by the format's own procedures.

        Returns:
            Figures for the report.
        """

    def delete(self, condition: str) -> None:
        """Delete the rows that a SQL condition holds for."""
        self._sql(f"DELETE FROM {self.name.sql} WHERE {condition}")

    def keep(self, keys: DataFrame, column: str) -> None:
        """Delete the rows whose key is not among the given ones.

        Args:
            keys: The column, distinct.
            column: The key's column.
        """
        keys.createOrReplaceTempView("keys_to_keep")
        self._sql(
            f"MERGE INTO {self.name.sql} t USING keys_to_keep k ON t.{column} = k.{column} "
            "WHEN NOT MATCHED BY SOURCE THEN DELETE"
        )
