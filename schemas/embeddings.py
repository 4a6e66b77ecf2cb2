"""The embedding store: a photo's embedding, or the permanent reason why it has none."""

import pyarrow as pa

from schemas.columns import column

__all__ = ["EMBEDDINGS"]

EMBEDDINGS: pa.Schema = pa.schema(
    [
        column("image_key", pa.string(), "SHA-256 of the photo, or its address's", nullable=False),
        column(
            "backbone_digest", pa.string(), "digest of backbone and preprocessing", nullable=False
        ),
        column("vector", pa.binary(), "the embedding, little-endian float16"),
        column("reject_reason", pa.string(), "why the photo can have no embedding"),
    ]
)
"""A row has either a `vector` of little-endian float16 or a permanent `reject_reason`."""
