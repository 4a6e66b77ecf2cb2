"""The listings in which a new kind of goods may show, the output of `jobs.find_new_kinds`."""

import pyarrow as pa

from schemas.columns import column

__all__ = ["NEW_KINDS"]

NEW_KINDS: pa.Schema = pa.schema(
    [
        column("listing_id", pa.string(), "the listing, once", nullable=False),
        column("cluster", pa.int32(), "the cluster it is in, 1 being the largest; null for none"),
        column("distance", pa.float32(), "its distance to the cluster's middle; null for none"),
    ]
)
"""One row for each listing that was looked at, by cluster and then by distance."""
