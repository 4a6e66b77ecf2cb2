"""Rules that the rows of a table must keep."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import DataContractError

__all__ = ["Rule", "check_rows", "has_values", "not_in"]

Rule = tuple[str, pa.ChunkedArray, str]
"""A column, a boolean mask that is true for the rows that break the rule (null counts as false),
and what was expected."""


def check_rows(table: pa.Table, rules: Iterable[Rule], where: str) -> None:
    """Stop at the first rule that a row breaks.

    Args:
        table: With a `listing_id`.
        rules: What its rows must keep.
        where: Names the table at the beginning of an error message.

    Raises:
        DataContractError: A row breaks a rule; the message names the first such row.
    """
    for name, broken, expected in rules:
        row = pc.index(broken, True).as_py()
        if row >= 0:
            value = table[name][row].as_py()
            found = "null" if value is None else repr(value)
            raise DataContractError(
                f"{where}: column {name} is {found}, expected {expected} "
                f"(listing_id {table['listing_id'][row].as_py()!r}, row {row})"
            )


def has_values(table: pa.Table, schema: pa.Schema) -> Iterator[Rule]:
    """The rules that columns which may not be null have values."""
    for field in schema:
        if not field.nullable:
            yield field.name, pc.is_null(table[field.name]), "a value"


def not_in(column: pa.ChunkedArray, names: Iterable[str]) -> pa.ChunkedArray:
    """Whether each value of a string column, null included, is none of `names`."""
    return pc.invert(pc.is_in(column, value_set=pa.array(map(str, names), column.type)))
