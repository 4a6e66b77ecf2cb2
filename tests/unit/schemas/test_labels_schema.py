"""The labels table: what may be added, and the message for what may not."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from schemas.errors import DataContractError
from schemas.labels import LABELS, check_labels

ROW: dict[str, Any] = {
    "listing_id": "L",
    "task": "category",
    "decision": "category",
    "category_id": "aa-1",
    "reviewer": "ada",
    "source": "review",
    "taxonomy_version": "2025-08",
    "decided_at": datetime(2026, 11, 25, tzinfo=UTC),
}
LOOSE = pa.schema([field.with_nullable(True) for field in LABELS])


def check(**changes: Any) -> None:
    check_labels(pa.Table.from_pylist([ROW, ROW | changes], schema=LOOSE), "here")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"decision": "unsure", "category_id": None},
        {"selection": "instructive"},
        {"decision": "not_in_taxonomy", "category_id": None, "source": "import"},
        {"source": "rule", "reason": "recall 17", "expires_at": datetime(2027, 1, 1, tzinfo=UTC)},
    ],
)
def test_accepted(changes: dict[str, Any]) -> None:
    check(**changes)


@pytest.mark.parametrize(
    ("changes", "column", "expected"),
    [
        ({"selection": "luck"}, "selection", "null or one of random, audit, instructive"),
        ({"decision": "maybe"}, "decision", "one of category, unsure"),
        ({"source": "guess"}, "source", "one of review, import, rule"),
        ({"category_id": None}, "category_id", "a category for the decision category"),
        ({"decision": "unsure"}, "category_id", "null for others"),
        ({"reviewer": None}, "reviewer", "a value"),
        ({"decided_at": None}, "decided_at", "a value"),
    ],
)
def test_refused(changes: dict[str, Any], column: str, expected: str) -> None:
    with pytest.raises(DataContractError) as error:
        check(**changes)
    assert f"here: column {column} is" in str(error.value)
    assert expected in str(error.value)
    assert "(listing_id 'L', row 1)" in str(error.value)


def test_a_column_is_missing() -> None:
    table = pa.Table.from_pylist([ROW], schema=LOOSE).drop_columns("reviewer")
    with pytest.raises(DataContractError, match="column reviewer is missing"):
        check_labels(table, "here")
