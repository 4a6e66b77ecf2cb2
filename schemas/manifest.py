"""The manifest: one row a photo, the input of every job."""

from collections.abc import Collection

import pyarrow as pa

from schemas.errors import DataContractError

__all__ = ["MANIFEST", "check_manifest", "column_problems"]

MANIFEST: pa.Schema = pa.schema(
    [
        pa.field("listing_id", pa.string(), nullable=False),
        pa.field("image_index", pa.int32(), nullable=False),
        pa.field("image_uri", pa.string()),
        pa.field("image_bytes", pa.binary()),
        pa.field("image_key", pa.string()),
        pa.field("category_id", pa.string()),
        pa.field("split", pa.string()),
        pa.field("slices", pa.map_(pa.string(), pa.string())),
        pa.field("updated_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""Every column a manifest may have. `image_index` orders a listing's photos from 0; `image_key` is
the SHA-256 (hex) of a photo's bytes; a row sets exactly one of `image_uri` and `image_bytes`."""


def check_manifest(schema: pa.Schema, where: str) -> None:
    """Check a manifest's columns, before any row is read.

    `listing_id`, `image_index` and at least one of `image_uri` and `image_bytes` must be there; the
    other columns of `MANIFEST` may be absent, and columns it does not name are ignored. Variants
    that hold the same values pass: see `column_problems`, and any signed integer for `image_index`.

    Args:
        schema: The columns found.
        where: What was read, to begin the error message with.

    Raises:
        DataContractError: A column is missing, appears twice or has the wrong type.
    """
    index = schema.get_field_index("image_index")
    if index >= 0 and pa.types.is_signed_integer(schema.field(index).type):
        schema = schema.set(index, MANIFEST.field("image_index"))
    problems = column_problems(schema, MANIFEST, required=("listing_id", "image_index"))
    if "image_uri" not in schema.names and "image_bytes" not in schema.names:
        problems.append(
            "columns image_uri and image_bytes are both missing, "
            "expected image_uri (string) or image_bytes (binary)"
        )
    if problems:
        raise DataContractError(f"{where}: {'; '.join(problems)}")


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
