"""The categories table: exactly one row a listing, the output of `jobs.categorize_listings`."""

from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc

from schemas.columns import column, column_problems
from schemas.errors import DataContractError
from schemas.labels import LabelSource
from schemas.rejects import RejectReason
from schemas.row_rules import Rule, check_rows, has_values, not_in

__all__ = ["CATEGORIES", "DECIDED_BY_MODEL", "Decision", "ReviewReason", "check_categories"]

_CANDIDATE = pa.struct([("category_id", pa.string()), ("score", pa.float32())])

CATEGORIES: pa.Schema = pa.schema(
    [
        column("listing_id", pa.string(), "the listing, once a day", nullable=False),
        column("decision", pa.string(), "assigned, needs_review or rejected", nullable=False),
        column("category_id", pa.string(), "the category assigned, a leaf or an ancestor"),
        column("category_path", pa.list_(pa.string()), "its names from the top level on"),
        column(
            "score",
            pa.float32(),
            "its calibrated probability, or that of the best class; none if a person decided",
        ),
        column(
            "candidates",
            pa.list_(_CANDIDATE),
            "the best five classes, best first; none for a rejected listing",
            nullable=False,
        ),
        column(
            "review_reason",
            pa.string(),
            "why it needs review: unfamiliar, unsure, no_category or no_mapping",
        ),
        column("reject_reason", pa.string(), "why no photo of a rejected listing could be used"),
        column("images_used", pa.int32(), "photos that the decision rests on", nullable=False),
        column("images_rejected", pa.int32(), "photos that could not be used", nullable=False),
        column(
            "image_rejects",
            pa.map_(pa.int32(), pa.string()),
            "image_index of each photo that could not be used, to the reason",
        ),
        column(
            "decided_by",
            pa.string(),
            "model, or the source of a decision: review, import or rule",
            nullable=False,
        ),
        column("model_name", pa.string(), "the model's name", nullable=False),
        column("model_version", pa.string(), "its version in the registry", nullable=False),
        column("bundle_digest", pa.string(), "digest of all that scored", nullable=False),
        column("taxonomy_version", pa.string(), "version of the taxonomy", nullable=False),
        column("run_id", pa.string(), "the MLflow run that wrote the row", nullable=False),
        column(
            "categorized_at", pa.timestamp("us", tz="UTC"), "when that run scored", nullable=False
        ),
    ]
)
"""`candidates` are the best five classes, best first (none for a rejected listing); `image_rejects`
maps the `image_index` of each photo that could not be used to its reject reason."""


class Decision(StrEnum):
    """Outcome of a listing."""

    ASSIGNED = "assigned"
    """The score of a leaf, or of an ancestor, reached its threshold."""
    NEEDS_REVIEW = "needs_review"
    """No category is familiar and sure enough; `ReviewReason` says which is missing."""
    REJECTED = "rejected"
    """None of the listing's photos could be used."""


class ReviewReason(StrEnum):
    """Why a listing needs review."""

    UNFAMILIAR = "unfamiliar"
    """It is unlike the category that it would be assigned, or unlike all that the model knows."""
    UNSURE = "unsure"
    """It is like what the model knows, and no score reached its threshold."""
    NO_CATEGORY = "no_category"
    """A person decided that it is of no category."""
    NO_MAPPING = "no_mapping"
    """Its category has no counterpart in the taxonomy that it was mapped to, or several."""


DECIDED_BY_MODEL = "model"
"""`decided_by` of a listing that no person decided."""


def check_categories(table: pa.Table, where: str) -> None:
    """Check the rows that a job is about to publish.

    Types are compared as in `column_problems`, so that Spark's Parquet passes. Extra columns are
    ignored.

    Args:
        table: All rows of one partition.
        where: Names the table at the beginning of an error message.

    Raises:
        DataContractError: A column is missing or of the wrong type, a value breaks the contract, or
            a listing has more than one row. The message names the column and an example listing.
    """
    problems = column_problems(table.schema, CATEGORIES, required=CATEGORIES.names)
    if problems:
        raise DataContractError(f"{where}: {'; '.join(problems)}")

    check_rows(table, _rules(table), where)
    _check_unique(table["listing_id"], where)


def _rules(table: pa.Table) -> list[Rule]:
    decision = table["decision"].cast(pa.large_string())
    assigned = pc.equal(decision, Decision.ASSIGNED)
    rejected = pc.equal(decision, Decision.REJECTED)
    needs_review = pc.equal(decision, Decision.NEEDS_REVIEW)
    reason = table["reject_reason"].cast(pa.large_string())
    has_reason = pc.is_valid(reason)
    review_reason = table["review_reason"].cast(pa.large_string())
    has_review_reason = pc.is_valid(review_reason)
    no_path = pc.equal(pc.fill_null(pc.list_value_length(table["category_path"]), 0), 0)
    no_score = pc.is_null(table["score"], nan_is_null=True)
    none_used = pc.equal(table["images_used"], 0)
    decided_by = table["decided_by"].cast(pa.large_string())
    by_model = pc.equal(decided_by, DECIDED_BY_MODEL)
    sources = [DECIDED_BY_MODEL, *LabelSource]
    return [
        *has_values(table, CATEGORIES),
        ("decision", not_in(decision, Decision), f"one of {', '.join(Decision)}"),
        (
            "reject_reason",
            pc.and_(has_reason, not_in(reason, RejectReason)),
            f"one of {', '.join(RejectReason)}",
        ),
        (
            "reject_reason",
            pc.and_(rejected, pc.invert(has_reason)),
            "a reason for a rejected listing",
        ),
        (
            "reject_reason",
            pc.and_(pc.invert(rejected), has_reason),
            "null for a listing that is not rejected",
        ),
        (
            "review_reason",
            pc.and_(has_review_reason, not_in(review_reason, ReviewReason)),
            f"one of {', '.join(ReviewReason)}",
        ),
        (
            "review_reason",
            pc.xor(needs_review, has_review_reason),
            "a reason for a listing that needs review, and null for others",
        ),
        (
            "category_id",
            pc.and_(assigned, pc.is_null(table["category_id"])),
            "a category for an assigned listing",
        ),
        ("category_path", pc.and_(assigned, no_path), "a path for an assigned listing"),
        (
            "score",
            pc.and_(pc.and_(assigned, by_model), no_score),
            "a score for a listing that the model assigned",
        ),
        ("decided_by", not_in(decided_by, sources), f"one of {', '.join(sources)}"),
        (
            "images_used",
            pc.and_(rejected, pc.invert(none_used)),
            "0 for a rejected listing",
        ),
        (
            "images_used",
            pc.and_(pc.and_(pc.invert(rejected), by_model), none_used),
            "at least 1 for a listing that the model did not reject",
        ),
    ]


def _check_unique(listing_ids: pa.ChunkedArray, where: str) -> None:
    counts = pc.value_counts(listing_ids.cast(pa.large_string()))
    repeated = pc.index(pc.greater(counts.field("counts"), 1), True).as_py()
    if repeated >= 0:
        entry = counts[repeated].as_py()
        raise DataContractError(
            f"{where}: column listing_id: {entry['values']!r} is in {entry['counts']} rows, "
            "expected one row a listing"
        )
