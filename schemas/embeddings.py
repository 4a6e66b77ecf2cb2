"""The embedding store: a photo's embedding and signals, or the permanent reason why it has none.

Signals are what else was read in the same pass. They have in common who made them (`made_by`):
another version of that is not taken for it.
"""

from enum import StrEnum

import pyarrow as pa

from schemas.columns import column

__all__ = ["COLOURS", "EMBEDDINGS", "HASHES", "TEXT", "Signal"]


class Signal(StrEnum):
    """What is read of a photo beside its embedding; the name of its column."""

    HASHES = "hashes"
    """Perceptual hashes, to recognise the photo by."""
    TEXT = "text"
    """What is written in it."""
    COLOURS = "colours"
    """The main colours of its subject."""


HASHES: pa.StructType = pa.struct(
    [
        ("made_by", pa.string()),
        ("whole", pa.binary()),
        ("unframed", pa.binary()),
        ("quality", pa.int32()),
    ]
)
"""PDQ hashes of the whole photo and of what is inside its frame, 32 bytes each."""

TEXT: pa.StructType = pa.struct(
    [
        ("made_by", pa.string()),
        (
            "lines",
            pa.list_(
                pa.struct([("line", pa.string()), ("score", pa.float32()), ("share", pa.float32())])
            ),
        ),
    ]
)
"""Lines of text, each with how sure the reader is, and its share of the photo's area."""

COLOURS: pa.StructType = pa.struct(
    [
        ("made_by", pa.string()),
        ("colours", pa.list_(pa.struct([("name", pa.string()), ("share", pa.float32())]))),
    ]
)
"""One to three basic colour terms, the largest first, each with its share of the subject."""

EMBEDDINGS: pa.Schema = pa.schema(
    [
        column("image_key", pa.string(), "SHA-256 of the photo, or its address's", nullable=False),
        column(
            "backbone_digest", pa.string(), "digest of backbone and preprocessing", nullable=False
        ),
        column("vector", pa.binary(), "the embedding, little-endian float16"),
        column("reject_reason", pa.string(), "why the photo can have no embedding"),
        column(Signal.HASHES, HASHES, "perceptual hashes; null if they were not asked for"),
        column(Signal.TEXT, TEXT, "what is written in it; null if it was not asked for"),
        column(Signal.COLOURS, COLOURS, "its subject's colours; null if not asked for"),
        column("added_at", pa.timestamp("us", tz="UTC"), "when the row was added"),
    ]
)
"""A row has either a `vector` of little-endian float16 or a permanent `reject_reason`."""
