"""The descriptions: one row a photo and locale, the output of `jobs.describe_listings`."""

from enum import StrEnum

import pyarrow as pa

from schemas.columns import column

__all__ = ["DESCRIPTIONS", "LONGEST_TEXT", "StatementKind"]

LONGEST_TEXT = 125
"""Characters of an alternative text: screen readers may break off or split a longer one."""


class StatementKind(StrEnum):
    """What is said of a photo, in the order in which it matters to a reader."""

    CATEGORY = "category"
    """What the listing is; value: its category, or the ancestor that was assigned."""
    COLOUR = "colour"
    """The main colour of the photo's subject."""
    ATTRIBUTE = "attribute"
    """A property of the listing; value: `NAME=VALUE`."""
    TEXT = "text"
    """A line of what is written in the photo."""
    POSITION = "position"
    """Which of the listing's readable photos it is; value: `2/4`."""


_STATEMENT = pa.struct([("kind", pa.string()), ("value", pa.string()), ("score", pa.float32())])

DESCRIPTIONS: pa.Schema = pa.schema(
    [
        column("listing_id", pa.string(), "the listing", nullable=False),
        column("image_index", pa.int32(), "the photo's number in the manifest"),
        column("locale", pa.string(), "the language of the text", nullable=False),
        column("alt_text", pa.string(), "at most 125 characters; null if nothing is known"),
        column(
            "statements",
            pa.list_(_STATEMENT),
            "all that the text says, the most important first; kind is category, colour, "
            "attribute, text or position",
            nullable=False,
        ),
        column("reject_reason", pa.string(), "why the photo could not be read"),
        column("model_name", pa.string(), "the categorizer", nullable=False),
        column("model_version", pa.string(), "its version or digest", nullable=False),
        column("run_id", pa.string(), "the MLflow run that described it", nullable=False),
        column("described_at", pa.timestamp("us", tz="UTC"), "when", nullable=False),
    ]
)
