"""The manifest: one row a photo, the input of most jobs."""

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.columns import column_problems
from schemas.errors import DataContractError

__all__ = ["MANIFEST", "check_manifest", "manifest_columns"]

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
        pa.field("attributes", pa.map_(pa.string(), pa.string())),
        pa.field("concepts", pa.map_(pa.string(), pa.bool_())),
        pa.field("updated_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""All columns. `image_index` orders a listing's photos from 0; `image_key` is the SHA-256 (hex) of
the photo's bytes; a row sets exactly one of `image_uri` and `image_bytes`. `attributes` are the
listing's, such as its material; `concepts` says what the photo shows of what a screener looks for.
"""

_REQUIRED = ("listing_id", "image_index")
_SOURCES = ("image_uri", "image_bytes")
# Parquet annotates text in several ways; arrow calls some of them binary.
_TEXT = ("ENUM", "JSON")


def check_manifest(schema: pa.Schema, where: str) -> None:
    """Check a manifest's columns, before any row is read.

    `listing_id`, `image_index` and at least one of `image_uri` and `image_bytes` are required.
    Types are compared as in `column_problems`; `image_index` may be any integer but uint64. A
    column of arrow's type null holds nothing, so an optional one counts as absent. Extra columns
    are ignored.

    Args:
        schema: The columns found.
        where: Names the manifest, or one of its files, at the beginning of an error message.

    Raises:
        DataContractError: A column is missing, appears twice or has the wrong type.
    """
    problems = _problems([field for field in schema if not _is_empty_option(field)], _REQUIRED)
    if not any(name in schema.names for name in _SOURCES):
        problems.append(
            "columns image_uri and image_bytes are both missing, "
            "expected image_uri (string) or image_bytes (binary)"
        )
    if problems:
        raise DataContractError(f"{where}: {'; '.join(problems)}")


def manifest_columns(metadata: pq.FileMetaData) -> pa.Schema:
    """Return the columns of the contract that a Parquet file has, for `check_manifest`.

    A column of a wrong type whose statistics say that every value is null gets the type null:
    writers that know no type for such a column choose one of their own.
    """
    leaves: dict[str, list[int]] = {}
    for i in range(metadata.num_columns):
        leaves.setdefault(metadata.schema.column(i).path.partition(".")[0], []).append(i)
    columns = [field for field in metadata.schema.to_arrow_schema() if field.name in MANIFEST.names]
    return pa.schema([_as_read(field, metadata, leaves[field.name]) for field in columns])


def _as_read(field: pa.Field, metadata: pq.FileMetaData, leaves: list[int]) -> pa.Field:
    first = metadata.schema.column(leaves[0])
    if len(leaves) == 1 and first.logical_type.type in _TEXT:
        return field.with_type(pa.string())
    if first.physical_type == "INT96":  # Arrow takes it for nanoseconds since 1970.
        return field.with_type(pa.timestamp("us"))
    if _problems([field], required=()) and _is_all_null(metadata, leaves):
        return field.with_type(pa.null())
    return field


def _is_empty_option(field: pa.Field) -> bool:
    return pa.types.is_null(field.type) and field.name not in _REQUIRED


def _problems(fields: list[pa.Field], required: tuple[str, ...]) -> list[str]:
    index = MANIFEST.field("image_index")
    found = [
        index if field.name == index.name and _is_index(field.type) else field for field in fields
    ]
    return column_problems(pa.schema(found), MANIFEST, required)


def _is_index(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) and kind != pa.uint64())


def _is_all_null(metadata: pq.FileMetaData, leaves: list[int]) -> bool:
    chunks = (
        metadata.row_group(group).column(leaf)
        for group in range(metadata.num_row_groups)
        for leaf in leaves
    )
    return all(
        chunk.is_stats_set
        and chunk.statistics.has_null_count
        and chunk.statistics.null_count == chunk.num_values
        for chunk in chunks
    )
