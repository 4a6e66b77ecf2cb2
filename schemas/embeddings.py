"""The embedding store: what a backbone made of a photo, or why it never will."""

import pyarrow as pa
import pyarrow.compute as pc

from schemas.checks import check_rows, column_problems
from schemas.errors import DataContractError
from schemas.rejects import RejectReason

__all__ = ["EMBEDDINGS", "check_embeddings"]

EMBEDDINGS: pa.Schema = pa.schema(
    [
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("backbone_digest", pa.string(), nullable=False),
        pa.field("vector", pa.binary()),
        pa.field("reject_reason", pa.string()),
    ]
)
"""`vector` holds little-endian float16 values; a row has a vector or a permanent reject reason."""


def check_embeddings(table: pa.Table, width: int, where: str) -> None:
    """Check rows of an embedding store.

    Types are compared as in `column_problems`. Extra columns are ignored.

    Args:
        table: The rows.
        width: How many values a vector has; each takes 2 bytes.
        where: What was read, to begin the error message with.

    Raises:
        DataContractError: A column is missing or of the wrong type, or a row has a null key, both
            or neither of `vector` and `reject_reason`, a vector of another length, or a reason that
            is not permanent. The message names the column and an example `image_key`.
    """
    problems = column_problems(table.schema, EMBEDDINGS, required=EMBEDDINGS.names)
    if problems:
        raise DataContractError(f"{where}: {'; '.join(problems)}")

    length = pc.binary_length(table["vector"].cast(pa.large_binary()))
    wrong = pc.index(pc.not_equal(length, 2 * width), True).as_py()
    if wrong >= 0:
        key = table["image_key"][wrong].as_py()
        raise DataContractError(
            f"{where}: column vector has {length[wrong]} bytes, expected {2 * width} for {width} "
            f"float16 values (image_key {key!r}, row {wrong})"
        )
    reason = table["reject_reason"].cast(pa.large_string())
    has_reason = pc.is_valid(reason)
    has_vector = pc.is_valid(length)
    permanent = [reason.value for reason in RejectReason if reason.permanent]
    is_permanent = pc.is_in(reason, value_set=pa.array(permanent, reason.type))
    check_rows(
        table,
        "image_key",
        where,
        [
            ("image_key", pc.is_null(table["image_key"]), "a value"),
            ("backbone_digest", pc.is_null(table["backbone_digest"]), "a value"),
            (
                "reject_reason",
                pc.and_(has_reason, has_vector),
                "null beside a vector",
            ),
            (
                "reject_reason",
                pc.invert(pc.or_(has_reason, has_vector)),
                "a reason where there is no vector",
            ),
            (
                "reject_reason",
                pc.and_(has_reason, pc.invert(is_permanent)),
                f"a permanent one: {', '.join(permanent)}",
            ),
        ],
    )
