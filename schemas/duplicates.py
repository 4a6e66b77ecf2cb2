"""Groups of photos that are the same one, edited: the output of `jobs.find_duplicates`."""

import pyarrow as pa

from schemas.columns import column

__all__ = ["DUPLICATES"]

DUPLICATES: pa.Schema = pa.schema(
    [
        column("group_id", pa.string(), "key of the group's representative", nullable=False),
        column("listing_id", pa.string(), "the listing", nullable=False),
        column("image_index", pa.int32(), "which of its photos"),
        column("photo_key", pa.string(), "the photo's key in the store", nullable=False),
        column("seen_on", pa.date32(), "the day of the manifest", nullable=False),
        column(
            "is_representative",
            pa.bool_(),
            "the group's first: of the earliest day, and of its smallest listing id",
            nullable=False,
        ),
        column(
            "score",
            pa.float32(),
            "how much it resembles the photo of the group that it resembles most, up to 1",
            nullable=False,
        ),
        column("run_id", pa.string(), "the MLflow run that found it", nullable=False),
    ]
)
"""One row a photo of a group; every group has photos of two listings at least, one of the day."""
