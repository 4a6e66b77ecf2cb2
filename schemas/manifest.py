"""The manifest: one row a photo, the input of every job."""

import pyarrow as pa

from schemas.checks import column_problems
from schemas.errors import DataContractError

__all__ = ["MANIFEST", "check_manifest"]

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
