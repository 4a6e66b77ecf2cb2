"""Open the output that `--output` names."""

from pathlib import Path

import pyarrow as pa
from pyspark.sql import SparkSession

from jobs.command.locations import Table
from jobs.stages.publish.base import Output
from jobs.stages.publish.folder import FolderOutput
from jobs.stages.publish.table import TableOutput
from jobs.tables.opening import TableContract
from schemas.categories import CATEGORIES
from schemas.columns import column
from schemas.descriptions import DESCRIPTIONS
from schemas.duplicates import DUPLICATES
from schemas.manifest import MANIFEST
from schemas.screening import SCREENING

__all__ = [
    "CATEGORIES_TABLE",
    "DESCRIPTIONS_TABLE",
    "DUPLICATES_TABLE",
    "MANIFEST_TABLE",
    "SCREENING_TABLE",
    "open_output",
]


def _by_day(columns: pa.Schema, comment: str) -> TableContract:
    """What a table has to be like whose partitions are days.

    Args:
        columns: Its columns but `ds`.
        comment: What a row is.
    """
    ds = column("ds", pa.date32(), "the day", nullable=False)
    return TableContract(pa.schema([*columns, ds]), (ds.name,), comment)


CATEGORIES_TABLE = _by_day(CATEGORIES, "Categories of listings, one row a listing and day")
DESCRIPTIONS_TABLE = _by_day(DESCRIPTIONS, "Alternative texts, one row a photo, locale and day")
DUPLICATES_TABLE = _by_day(DUPLICATES, "Photos that are in several listings, one row a photo")
MANIFEST_TABLE = _by_day(MANIFEST, "Photos of listings, one row a photo and day")
SCREENING_TABLE = _by_day(SCREENING, "Whether listings may be shown, one row a listing and day")


def open_output(spark: SparkSession, location: Path | Table, contract: TableContract) -> Output:
    """Open an output.

    Args:
        spark: The session.
        location: `--output`.
        contract: What it has to be like if it is a table.
    """
    if isinstance(location, Table):
        return TableOutput(spark, location, contract)
    return FolderOutput(location)
