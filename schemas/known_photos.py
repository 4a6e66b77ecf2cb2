"""The list of known photos, which must not come back: the output of `jobs.list_known_photos`."""

import pyarrow as pa

from schemas.columns import column

__all__ = ["KNOWN_PHOTOS"]

KNOWN_PHOTOS: pa.Schema = pa.schema(
    [
        column("known_id", pa.string(), "the photo's name, for its findings", nullable=False),
        column("rule", pa.string(), "the rule that its findings are of", nullable=False),
        column("action", pa.string(), "review or block", nullable=False),
        column("variant", pa.string(), "what was hashed, such as mirrored", nullable=False),
        column("hash", pa.binary(), "PDQ, 32 bytes", nullable=False),
    ]
)
"""One row a photo and variant. It has hashes alone, so that it may be passed on."""
