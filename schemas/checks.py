"""What the contracts share: comparing columns with the expected ones, and rows with rules."""

from collections.abc import Collection, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import DataContractError

__all__ = ["check_rows", "column_problems"]


def column_problems(schema: pa.Schema, expected: pa.Schema, required: Collection[str]) -> list[str]:
    """Compare columns with the expected ones, by name and type; extra columns are ignored.

    Types that differ only in how Arrow lays out the same values are equal: large, view and
    dictionary-encoded strings and binaries, large lists, timestamps of any unit and zone, and the
    nullability and inner field names of lists and maps. Struct fields keep their names.

    Args:
        schema: The columns found.
        expected: The columns to look for.
        required: Names of the expected columns that must be there.

    Returns:
        One clause for each problem, saying the column, what was found and what was expected.
    """
    problems = []
    for field in expected:
        count = schema.names.count(field.name)
        if count > 1:
            problems.append(f"column {field.name} appears {count} times, expected once")
        elif count == 1:
            found = schema.field(field.name).type
            if _plain(found) != _plain(field.type):
                problems.append(f"column {field.name} is {found}, expected {field.type}")
        elif field.name in required:
            problems.append(f"column {field.name} is missing, expected {field.type}")
    return problems


def _plain(kind: pa.DataType) -> pa.DataType:
    """The plainest type that holds the same values as `kind`."""
    is_a = pa.types
    plain = kind
    if is_a.is_dictionary(kind):
        plain = _plain(kind.value_type)
    elif is_a.is_large_string(kind) or is_a.is_string_view(kind):
        plain = pa.string()
    elif is_a.is_large_binary(kind) or is_a.is_binary_view(kind):
        plain = pa.binary()
    elif is_a.is_timestamp(kind):
        plain = pa.timestamp("us", tz="UTC")
    elif is_a.is_list(kind) or is_a.is_large_list(kind):
        plain = pa.list_(_plain(kind.value_type))
    elif is_a.is_map(kind):
        plain = pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    elif is_a.is_struct(kind):
        plain = pa.struct([(field.name, _plain(field.type)) for field in kind])
    return plain


def check_rows(
    table: pa.Table,
    key: str,
    where: str,
    rules: Iterable[tuple[str, pa.ChunkedArray, str]],
) -> None:
    """Stop at the first rule that a row breaks.

    Args:
        table: The rows, shape (n,).
        key: The column that names a row to a person.
        where: What was read, to begin the error message with.
        rules: For each rule the column it is about, a boolean mask of shape (n,) that is true for
            the rows that break it (null counts as false), and what was expected.

    Raises:
        DataContractError: A mask has a true value; the message gives the first such row.
    """
    for column, broken, expected in rules:
        row = pc.index(broken, True).as_py()
        if row >= 0:
            value = table[column][row].as_py()
            found = "null" if value is None else repr(value)
            raise DataContractError(
                f"{where}: column {column} is {found}, expected {expected} "
                f"({key} {table[key][row].as_py()!r}, row {row})"
            )
