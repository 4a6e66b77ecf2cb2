"""Open a table by its name: created if it is missing, given new columns, or refused."""

from typing import NamedTuple

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_type

from jobs.command.locations import Table
from jobs.command.spark_errors import root_cause
from jobs.tables.delta import DeltaTable
from jobs.tables.iceberg import IcebergTable
from jobs.tables.lake_table import LakeTable
from schemas.columns import column_comment, column_problems
from schemas.errors import DataContractError, SettingsError

__all__ = ["TableContract", "find_table", "open_table", "read_table"]

_FORMATS: dict[str, type[LakeTable]] = {"iceberg": IcebergTable, "delta": DeltaTable}


class TableContract(NamedTuple):
    """What a table has to be like.

    Attributes:
        columns: Its columns, with comments; others are left alone.
        partitioned_by: The columns of its partitioning.
        comment: What a row is.
    """

    columns: pa.Schema
    partitioned_by: tuple[str, ...]
    comment: str


def find_table(spark: SparkSession, name: Table) -> LakeTable | None:
    """Open a table, or return None if there is none of this name.

    Raises:
        SettingsError: There is no such catalog, it cannot be reached, or the table's format has no
            atomic commits.
    """
    if (provider := _provider(spark, name)) is None:
        return None
    if provider not in _FORMATS:
        raise SettingsError(
            f"{name}: its format {provider or '(unknown)'} has no atomic commits; "
            f"name a table of {' or '.join(_FORMATS)}"
        )
    return _FORMATS[provider](spark, name)


def read_table(spark: SparkSession, name: Table) -> DataFrame | None:
    """The rows of a table or view as of now, or None if there is none of this name.

    What is written meanwhile is not seen, if the format has versions.

    Raises:
        SettingsError: There is no such catalog, or it cannot be reached.
    """
    provider = _provider(spark, name)
    if provider in _FORMATS:
        table = _FORMATS[provider](spark, name)
        return table.read(table.version())
    return None if provider is None else spark.table(name.sql)


def _provider(spark: SparkSession, name: Table) -> str | None:
    """A table's format, empty for a view; None if there is none of this name."""
    try:
        if not spark.catalog.tableExists(name.sql):
            return None
        described = spark.sql(f"DESCRIBE TABLE EXTENDED {name.sql}").collect()
    except (PySparkException, Py4JJavaError) as error:
        raise SettingsError(f"{name}: Spark cannot open it: {root_cause(error)}") from error
    found = (row["data_type"] for row in described if row["col_name"] == "Provider")
    return str(next(found, "")).lower()


def open_table(spark: SparkSession, name: Table, contract: TableContract) -> LakeTable:
    """Open a table to write to: create it if it is missing, add the columns that it lacks.

    Raises:
        DataContractError: A column has another type, a column that the contract does not have may
            not be null, or the partitioning is another.
        SettingsError: See `find_table`; or the catalog's tables have no atomic commits.
    """
    table = find_table(spark, name)
    if table is None:
        _create(spark, name, contract)
        table = find_table(spark, name)
        assert table is not None  # noqa: S101 - just created
    _check(spark, table, contract)
    missing = [field for field in contract.columns if field.name not in table.columns.names]
    if missing:
        # Rows that are there already have no value for it.
        added = ", ".join(_definition(field.with_nullable(True)) for field in missing)
        spark.sql(f"ALTER TABLE {name.sql} ADD COLUMNS ({added})")
    return table


def _create(spark: SparkSession, name: Table, contract: TableContract) -> None:
    columns = ", ".join(map(_definition, contract.columns))
    try:
        spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {name.namespace}")
        spark.sql(
            f"CREATE TABLE IF NOT EXISTS {name.sql} ({columns}) USING {_format(spark, name)} "
            f"PARTITIONED BY ({', '.join(contract.partitioned_by)}) "
            f"COMMENT {_literal(contract.comment)}"
        )
    except (PySparkException, Py4JJavaError) as error:
        raise SettingsError(f"{name}: cannot be created: {root_cause(error)}") from error


def _format(spark: SparkSession, name: Table) -> str:
    """The format of a catalog's new tables."""
    catalog = spark.conf.get(f"spark.sql.catalog.{name.catalog}", "") or ""
    for known in _FORMATS:
        if known in catalog.lower():
            return known
    default = spark.conf.get("spark.sql.sources.default", "") or ""
    if default in _FORMATS:
        return default
    raise SettingsError(
        f"{name}: is not there, and the catalog {name.catalog} does not say which format to "
        f"create it in; create it with {' or '.join(_FORMATS)}"
    )


def _definition(field: pa.Field) -> str:
    required = "" if field.nullable else " NOT NULL"
    comment = column_comment(field)
    kind = from_arrow_type(field.type).simpleString()
    return f"`{field.name}` {kind}{required}" + (f" COMMENT {_literal(comment)}" if comment else "")


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _check(spark: SparkSession, table: LakeTable, contract: TableContract) -> None:
    found = table.columns
    problems = column_problems(found, contract.columns, required=())
    problems += [
        f"column {field.name} may not be null, but is not written"
        for field in found
        if not field.nullable and field.name not in contract.columns.names
    ]
    if (partitioned_by := _partitioned_by(spark, table.name)) != contract.partitioned_by:
        problems.append(
            f"is partitioned by {', '.join(partitioned_by) or 'no column'}, "
            f"expected {', '.join(contract.partitioned_by)}"
        )
    if problems:
        raise DataContractError(f"{table.name}: {'; '.join(problems)}; name another table")


def _partitioned_by(spark: SparkSession, name: Table) -> tuple[str, ...]:
    rows = iter(spark.sql(f"DESCRIBE TABLE EXTENDED {name.sql}").collect())
    for row in rows:
        if row["col_name"] in ("# Partition Information", "# Partitioning"):
            break
    columns = []
    for row in rows:
        if not row["col_name"] or row["col_name"].startswith("# D"):
            break
        if row["col_name"] != "# col_name":
            columns.append(row["col_name"])
    return tuple(columns)
