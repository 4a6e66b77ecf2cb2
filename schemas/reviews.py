"""The review queue: listings to show to a person, chosen or suspected of a wrong label."""

import pyarrow as pa

from schemas.categories import CATEGORIES
from schemas.columns import column

__all__ = ["REVIEWS"]

REVIEWS: pa.Schema = pa.schema(
    [
        column("listing_id", pa.string(), "the listing, once", nullable=False),
        column("task", pa.string(), "what to ask, such as category", nullable=False),
        column("place", pa.int32(), "its place in the queue, from 1", nullable=False),
        column("selection", pa.string(), "random, audit, instructive or suspect", nullable=False),
        column("explanation", pa.string(), "why it was chosen, in a sentence", nullable=False),
        column(
            "drawn_from",
            pa.int64(),
            "of how many listings it was drawn at random; null for others",
        ),
        *(
            CATEGORIES.field(name)
            for name in (
                "decision",
                "category_id",
                "category_path",
                "score",
                "candidates",
                "model_name",
                "model_version",
                "taxonomy_version",
            )
        ),
        column("run_id", pa.string(), "the MLflow run that chose", nullable=False),
    ]
)
"""One row a listing, in the order in which to show them."""
