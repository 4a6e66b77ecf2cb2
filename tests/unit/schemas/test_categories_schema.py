"""The categories table: what may be published, and the message for what may not."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.categories import CATEGORIES, Decision, check_categories
from schemas.errors import DataContractError
from schemas.rejects import RejectReason

ASSIGNED: dict[str, Any] = {
    "listing_id": "L-assigned",
    "decision": "assigned",
    "category_id": "aa-1",
    "category_path": ["Apparel", "Clothing"],
    "score": 0.9,
    "candidates": [
        {"category_id": "aa-1", "score": 0.9},
        {"category_id": "aa-2", "score": 0.1},
    ],
    "review_reason": None,
    "reject_reason": None,
    "images_used": 2,
    "images_rejected": 1,
    "image_rejects": [(1, "truncated")],
    "decided_by": "model",
    "model_name": "listing-categorizer",
    "model_version": "3",
    "bundle_digest": "ab" * 32,
    "taxonomy_version": "2025-08",
    "run_id": "run-1",
    "categorized_at": datetime(2026, 1, 31, 12, tzinfo=UTC),
}
BY_A_PERSON = {"decided_by": "review"}
REVIEW = ASSIGNED | {
    "listing_id": "L-review",
    "decision": "needs_review",
    "category_id": None,
    "category_path": None,
    "score": None,
    "review_reason": "unfamiliar",
    "image_rejects": None,
}
REJECTED = REVIEW | {
    "listing_id": "L-rejected",
    "decision": "rejected",
    "candidates": [],
    "review_reason": None,
    "reject_reason": "no_photo",
    "images_used": 0,
}
LOOSE = pa.schema([field.with_nullable(True) for field in CATEGORIES])


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=LOOSE)


def message(found: pa.Table) -> str:
    with pytest.raises(DataContractError) as caught:
        check_categories(found, "staging/ds=2026-01-31")
    text = str(caught.value)
    assert text.startswith("staging/ds=2026-01-31: ")
    assert "\n" not in text
    return text.removeprefix("staging/ds=2026-01-31: ")


def test_columns_and_types_of_the_contract():
    assert {field.name: str(field.type) for field in CATEGORIES} == {
        "listing_id": "string",
        "decision": "string",
        "category_id": "string",
        "category_path": "list<item: string>",
        "score": "float",
        "candidates": "list<item: struct<category_id: string, score: float>>",
        "review_reason": "string",
        "reject_reason": "string",
        "images_used": "int32",
        "images_rejected": "int32",
        "image_rejects": "map<int32, string>",
        "decided_by": "string",
        "model_name": "string",
        "model_version": "string",
        "bundle_digest": "string",
        "taxonomy_version": "string",
        "run_id": "string",
        "categorized_at": "timestamp[us, tz=UTC]",
    }
    assert {field.name for field in CATEGORIES if field.nullable} == {
        "category_id",
        "category_path",
        "score",
        "review_reason",
        "reject_reason",
        "image_rejects",
    }
    assert list(Decision) == ["assigned", "needs_review", "rejected"]


def test_each_decision_passes():
    check_categories(table(ASSIGNED, REVIEW, REJECTED), "here")
    check_categories(table(REVIEW | {"review_reason": "unsure"}), "here")
    check_categories(table(REVIEW | BY_A_PERSON | {"review_reason": "no_category"}), "here")


def test_a_person_needs_neither_score_nor_photo():
    check_categories(table(ASSIGNED | BY_A_PERSON | {"score": None, "images_used": 0}), "here")


def test_no_rows_pass():
    check_categories(CATEGORIES.empty_table(), "here")
    check_categories(pa.Table.from_batches([], schema=CATEGORIES), "here")


@pytest.mark.parametrize("reason", RejectReason)
def test_every_reject_reason_passes(reason):
    check_categories(table(REJECTED | {"reject_reason": str(reason)}), "here")


def test_extra_columns_are_ignored():
    found = table(ASSIGNED)
    check_categories(found.append_column("ds", pa.array(["2026-01-31"])), "here")


def test_types_as_spark_writes_them_pass(tmp_path):
    """Parquet with 96-bit timestamps, lists of `element` and every column nullable."""
    spark = pa.schema(
        [
            *(field for field in LOOSE if field.name not in {"category_path", "candidates"}),
            pa.field("category_path", pa.list_(pa.field("element", pa.string()))),
            pa.field(
                "candidates",
                pa.list_(pa.field("element", CATEGORIES.field("candidates").type.value_type)),
            ),
        ]
    )
    file = tmp_path / "part-0.parquet"
    found = table(ASSIGNED, REVIEW, REJECTED).select(spark.names).cast(spark)
    pq.write_table(found, file, use_deprecated_int96_timestamps=True)
    read = pq.ParquetFile(file).read()
    assert read.schema.field("categorized_at").type == pa.timestamp("ns")
    check_categories(read, "here")


@pytest.mark.parametrize("text", [pa.large_string(), pa.string_view()])
def test_other_layouts_of_strings_pass(text):
    fields = [field.with_type(text) if pa.types.is_string(field.type) else field for field in LOOSE]
    found = table(ASSIGNED, REVIEW, REJECTED).cast(pa.schema(fields))
    check_categories(found, "here")
    broken = table(ASSIGNED, REJECTED | {"reject_reason": "?"}).cast(pa.schema(fields))
    assert message(broken).startswith("column reject_reason is '?', expected one of no_photo, ")


@pytest.mark.parametrize("name", CATEGORIES.names)
def test_a_missing_column_is_named(name):
    expected = CATEGORIES.field(name).type
    assert message(table(ASSIGNED).drop_columns(name)) == (
        f"column {name} is missing, expected {expected}"
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("score", pa.float64()),
        ("images_used", pa.int64()),
        ("model_version", pa.int32()),
        ("category_path", pa.string()),
        ("candidates", pa.list_(pa.string())),
        ("candidates", pa.list_(pa.struct([("id", pa.string()), ("score", pa.float32())]))),
        ("image_rejects", pa.map_(pa.string(), pa.string())),
        ("categorized_at", pa.string()),
    ],
)
def test_a_wrong_type_is_named(name, kind):
    schema = CATEGORIES.set(CATEGORIES.get_field_index(name), pa.field(name, kind))
    assert message(schema.empty_table()) == (
        f"column {name} is {kind}, expected {CATEGORIES.field(name).type}"
    )


@pytest.mark.parametrize("name", [field.name for field in CATEGORIES if not field.nullable])
def test_no_null_in_a_required_column(name):
    found = message(table(ASSIGNED, REVIEW | {name: None}))
    listing = None if name == "listing_id" else "L-review"
    assert found == (f"column {name} is null, expected a value (listing_id {listing!r}, row 1)")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            REVIEW | {"decision": "maybe\n"},
            "column decision is 'maybe\\n', expected one of assigned, needs_review, rejected",
        ),
        (
            REJECTED | {"reject_reason": None},
            "column reject_reason is null, expected a reason for a rejected listing",
        ),
        (
            ASSIGNED | {"reject_reason": "no_photo"},
            "column reject_reason is 'no_photo', expected null for a listing that is not rejected",
        ),
        (
            REVIEW | {"review_reason": None},
            "column review_reason is null, expected a reason for a listing that needs review, and "
            "null for others",
        ),
        (
            ASSIGNED | {"review_reason": "unsure"},
            "column review_reason is 'unsure', expected a reason for a listing that needs review, "
            "and null for others",
        ),
        (
            REVIEW | {"review_reason": "ugly"},
            "column review_reason is 'ugly', expected one of unfamiliar, unsure, no_category, "
            "no_mapping",
        ),
        (
            REVIEW | {"decided_by": "nobody"},
            "column decided_by is 'nobody', expected one of model, review, import, rule",
        ),
        (
            ASSIGNED | {"category_id": None},
            "column category_id is null, expected a category for an assigned listing",
        ),
        (
            ASSIGNED | {"category_path": None},
            "column category_path is null, expected a path for an assigned listing",
        ),
        (
            ASSIGNED | {"category_path": []},
            "column category_path is [], expected a path for an assigned listing",
        ),
        (
            ASSIGNED | {"score": None},
            "column score is null, expected a score for a listing that the model assigned",
        ),
        (
            ASSIGNED | {"score": float("nan")},
            "column score is nan, expected a score for a listing that the model assigned",
        ),
        (
            REJECTED | {"images_used": 1},
            "column images_used is 1, expected 0 for a rejected listing",
        ),
        (
            REVIEW | {"images_used": 0},
            "column images_used is 0, expected at least 1 for a listing that the model did not "
            "reject",
        ),
    ],
)
def test_a_value_that_breaks_the_contract_is_named_with_its_listing(row, expected):
    others = [row_ for row_ in (ASSIGNED, REVIEW, REJECTED) if row_["decision"] != row["decision"]]
    row = row | {"listing_id": "L7"}
    place = f" (listing_id 'L7', row {len(others)})"
    assert message(table(*others, row)) == expected + place


def test_an_unknown_reject_reason():
    found = message(table(REJECTED | {"reject_reason": "bad luck"}))
    assert found.startswith("column reject_reason is 'bad luck', expected one of no_photo, ")
    assert found.endswith(" (listing_id 'L-rejected', row 0)")


def test_one_row_a_listing():
    rows = [ASSIGNED, REVIEW, REJECTED, REVIEW, REVIEW]
    found = pa.concat_tables([table(row) for row in rows])  # a chunk each
    assert message(found) == (
        "column listing_id: 'L-review' is in 3 rows, expected one row a listing"
    )
