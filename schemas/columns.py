"""Describe a table's columns, and compare them with those of a contract."""

from collections.abc import Collection

import pyarrow as pa

__all__ = ["column", "column_comment", "column_problems"]

_COMMENT = b"comment"


def column(name: str, kind: pa.DataType, comment: str, *, nullable: bool = True) -> pa.Field:
    """A column with a comment, which catalogs show."""
    return pa.field(name, kind, nullable, metadata={_COMMENT: comment})


def column_comment(field: pa.Field) -> str:
    """The comment of a column, empty where it has none."""
    comment: bytes = (field.metadata or {}).get(_COMMENT, b"")
    return comment.decode()


def column_problems(schema: pa.Schema, expected: pa.Schema, required: Collection[str]) -> list[str]:
    """Compare columns with the expected ones, by name and type; extra columns are ignored.

    Types that lay out the same values differently count as equal: large, view and
    dictionary-encoded strings and binaries, large lists, timestamps of any unit and zone, and
    lists and maps of other nullability or inner field names. Struct fields must have their names.

    Args:
        schema: The columns found.
        expected: The columns of the contract.
        required: Names of the columns that must not be missing.

    Returns:
        One clause for each problem: the column, what was found and what was expected.
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
    """The contracts' type for the same values as `kind`."""
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
