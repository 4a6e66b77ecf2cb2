"""The embedding store: a photo's embedding, or the permanent reason why it has none."""

import pyarrow as pa

__all__ = ["EMBEDDINGS"]

EMBEDDINGS: pa.Schema = pa.schema(
    [
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("backbone_digest", pa.string(), nullable=False),
        pa.field("vector", pa.binary()),
        pa.field("reject_reason", pa.string()),
    ]
)
"""A row has either a `vector` of little-endian float16 or a permanent `reject_reason`."""
