"""The labels table: what people decided of listings, append-only."""

from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc

from schemas.columns import column, column_problems
from schemas.errors import DataContractError
from schemas.row_rules import Rule, check_rows, has_values, not_in

__all__ = ["CATEGORY_TASK", "LABELS", "LabelDecision", "LabelSource", "Selection", "check_labels"]

LABELS: pa.Schema = pa.schema(
    [
        column("listing_id", pa.string(), "the listing", nullable=False),
        column("task", pa.string(), "what was asked, such as category", nullable=False),
        column(
            "decision",
            pa.string(),
            "category, unsure, not_in_taxonomy, bad_photo, violation or no_violation",
            nullable=False,
        ),
        column("category_id", pa.string(), "the category decided for; null for other decisions"),
        column("reviewer", pa.string(), "who decided", nullable=False),
        column("source", pa.string(), "review, import or rule", nullable=False),
        column("taxonomy_version", pa.string(), "version of the taxonomy", nullable=False),
        column("decided_at", pa.timestamp("us", tz="UTC"), "when", nullable=False),
        column(
            "selection",
            pa.string(),
            "random, audit, instructive or suspect: why it was asked about; or null",
        ),
        column("reason", pa.string(), "why, in the words of who decided"),
        column(
            "expires_at", pa.timestamp("us", tz="UTC"), "from when on it no longer counts; or null"
        ),
        column("run_id", pa.string(), "the MLflow run that added the row"),
    ]
)
"""The newest row of a listing and task that has not expired counts."""

CATEGORY_TASK = "category"
"""The task whose question is: what category is this?"""


class LabelDecision(StrEnum):
    """What was decided."""

    CATEGORY = "category"
    """The listing is of `category_id`."""
    UNSURE = "unsure"
    """The reviewer cannot tell."""
    NOT_IN_TAXONOMY = "not_in_taxonomy"
    """It is of no category that the taxonomy has."""
    BAD_PHOTO = "bad_photo"
    """The photos do not show what it is."""
    VIOLATION = "violation"
    """It may not be offered."""
    NO_VIOLATION = "no_violation"
    """It may be offered."""


class LabelSource(StrEnum):
    """Where a decision came from."""

    REVIEW = "review"
    """A person was shown the listing."""
    IMPORT = "import"
    """A table of known labels."""
    RULE = "rule"
    """A rule of the team."""


class Selection(StrEnum):
    """Why a listing was asked about."""

    RANDOM = "random"
    """Drawn at random from all: it tells how often the model is right."""
    AUDIT = "audit"
    """Drawn at random from the assigned ones: it tells how often those are right."""
    INSTRUCTIVE = "instructive"
    """The model was unsure of it, and it was unlike the others chosen."""
    SUSPECT = "suspect"
    """Its label was contradicted by listings like it."""


def check_labels(table: pa.Table, where: str) -> None:
    """Check decisions that are about to be added.

    Args:
        table: Of the columns of `LABELS`.
        where: Names the table at the beginning of an error message.

    Raises:
        DataContractError: A column is missing or of the wrong type, or a value breaks the contract.
    """
    if problems := column_problems(table.schema, LABELS, required=LABELS.names):
        raise DataContractError(f"{where}: {'; '.join(problems)}")
    check_rows(table, _rules(table), where)


def _rules(table: pa.Table) -> list[Rule]:
    decision = table["decision"].cast(pa.large_string())
    source = table["source"].cast(pa.large_string())
    selection = table["selection"].cast(pa.large_string())
    is_category = pc.equal(decision, LabelDecision.CATEGORY)
    has_category = pc.is_valid(table["category_id"])
    return [
        *has_values(table, LABELS),
        ("decision", not_in(decision, LabelDecision), f"one of {', '.join(LabelDecision)}"),
        ("source", not_in(source, LabelSource), f"one of {', '.join(LabelSource)}"),
        (
            "selection",
            pc.and_(pc.is_valid(selection), not_in(selection, Selection)),
            f"null or one of {', '.join(Selection)}",
        ),
        (
            "category_id",
            pc.xor(is_category, has_category),
            "a category for the decision category, and null for others",
        ),
    ]
