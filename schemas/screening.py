"""The screening table: exactly one row a listing, the output of `jobs.screen_listings`."""

from enum import StrEnum

import pyarrow as pa

from schemas.columns import column

__all__ = ["SCREENING", "Action", "FindingKind"]


class Action(StrEnum):
    """What to do with a listing, from the mildest to the strictest."""

    ALLOW = "allow"
    REVIEW = "review"
    BLOCK = "block"

    @property
    def strictness(self) -> int:
        """0 for the mildest."""
        return list(Action).index(self)


class FindingKind(StrEnum):
    """What a rule has found."""

    KNOWN_PHOTO = "known_photo"
    """A photo that must not come back, edited or not."""
    TEXT = "text"
    """Something written in a photo."""
    CONCEPT = "concept"
    """Something that a model has learned to see."""
    UNREADABLE = "unreadable"
    """A photo that could not be read, and so not be screened; its evidence is the reject reason."""


_FINDING = pa.struct(
    [
        ("rule", pa.string()),
        ("kind", pa.string()),
        ("action", pa.string()),
        ("image_index", pa.int32()),
        ("score", pa.float32()),
        ("evidence", pa.string()),
    ]
)

SCREENING: pa.Schema = pa.schema(
    [
        column("listing_id", pa.string(), "the listing, once a day", nullable=False),
        column(
            "action",
            pa.string(),
            "allow, review or block: that of its strictest finding",
            nullable=False,
        ),
        column(
            "findings",
            pa.list_(_FINDING),
            "what was found, the strictest first; kind is known_photo, text, concept or "
            "unreadable, evidence what was read, which known photo it is, or the threshold reached",
            nullable=False,
        ),
        column("photos_screened", pa.int32(), "photos that were looked at", nullable=False),
        column("photos_rejected", pa.int32(), "photos that could not be read", nullable=False),
        column(
            "screener_name",
            pa.string(),
            "the model of the concepts, or without one the backbone that embedded them",
            nullable=False,
        ),
        column("screener_version", pa.string(), "its version or digest", nullable=False),
        column(
            "rules_digest", pa.string(), "SHA-256 of the rules and known photos", nullable=False
        ),
        column("run_id", pa.string(), "the MLflow run that screened it", nullable=False),
        column("screened_at", pa.timestamp("us", tz="UTC"), "when", nullable=False),
    ]
)
