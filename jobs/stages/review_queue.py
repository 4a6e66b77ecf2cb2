"""The review queue: in the folder of each day, a file of what one job selected."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.columns import column_problems
from schemas.errors import DataContractError
from schemas.reviews import REVIEWS

__all__ = ["CHOSEN_FILE", "SUSPECTS_FILE", "queue_days", "queue_files", "read_queue", "write_queue"]

CHOSEN_FILE = "reviews.parquet"
"""What `jobs.select_reviews` selected of a day."""
SUSPECTS_FILE = "suspects.parquet"
"""What `jobs.find_label_errors` found."""


def queue_files(folder: Path) -> list[Path]:
    """All files of the queue, by day and name."""
    return sorted(folder.glob("ds=*/[!_]*.parquet"))


def queue_days(folder: Path) -> list[date]:
    """The days that have a queue, in order.

    Raises:
        DataContractError: There is none, or the folder of one is not of a day.
    """
    found = set()
    for path in queue_files(folder):
        try:
            found.add(date.fromisoformat(path.parent.name.removeprefix("ds=")))
        except ValueError:
            raise DataContractError(f"{path.parent}: is not of a day ds=YYYY-MM-DD") from None
    if not found:
        raise DataContractError(f"{folder}: has no ds=…/{CHOSEN_FILE}")
    return sorted(found)


def read_queue(folder: Path, ds: str) -> pa.Table:
    """Read a day's queue.

    Returns:
        The columns of `REVIEWS`; what was chosen comes before suspects.

    Raises:
        DataContractError: It is missing, damaged, or lacks a column.
    """
    files = [path for path in queue_files(folder) if path.parent.name == f"ds={ds}"]
    if not files:
        raise DataContractError(f"{folder}/ds={ds}: no such queue; run jobs.select_reviews")
    return pa.concat_tables(map(_read, files))


def _read(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise DataContractError(f"{path}: is damaged, or not Parquet") from error
    if problems := column_problems(table.schema, REVIEWS, REVIEWS.names):
        raise DataContractError(f"{path}: {'; '.join(problems)}")
    return table.select(REVIEWS.names).cast(REVIEWS)


def write_queue(queue: pa.Table, target: Path, constants: Mapping[str, Any]) -> None:
    """Replace a file of the queue at once.

    Args:
        queue: Columns of `REVIEWS`, in the order in which to show the rows; those it lacks are
            null, and `place` is counted.
        target: The file.
        constants: Values of columns that are the same in all rows.
    """
    columns: dict[str, Any] = {"place": range(1, len(queue) + 1)}
    columns |= {name: [value] * len(queue) for name, value in constants.items()}
    arrays = {name: queue[name] for name in queue.column_names} | {
        name: pa.array(values, REVIEWS.field(name).type) for name, values in columns.items()
    }
    missing = {f.name: pa.nulls(len(queue), f.type) for f in REVIEWS if f.name not in arrays}
    table = pa.table(arrays | missing).select(REVIEWS.names).cast(REVIEWS)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"_{target.name}")
    pq.write_table(table, fresh)
    fresh.replace(target)
