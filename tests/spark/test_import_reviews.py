"""jobs.import_reviews: a CSV of decisions, each once; what is refused, and agreement."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from pyspark.sql import SparkSession

from jobs import import_reviews
from tests.support.embedding_rows import error_line

pytestmark = pytest.mark.spark

TREE = "category_id,category_path\nc,Clothes\nc/caps,Clothes > Caps\nc/boots,Clothes > Boots\n"
Import = Callable[..., dict[str, Any]]


@pytest.fixture
def load(spark: SparkSession, tracking_uri: str, tmp_path: Path) -> Import:
    """Imports a CSV in this process and gives the report; `code` is the exit code expected."""
    (tmp_path / "tree.csv").write_text(TREE, encoding="utf-8")
    table, report = tmp_path / "decided.csv", tmp_path / "report.json"

    def run(text: str | None, *flags: str, code: int = 0) -> dict[str, Any]:
        if text is not None:
            table.write_text(text, encoding="utf-8")
        argv = ["--decisions", str(table), "--taxonomy", str(tmp_path / "tree.csv")]
        argv += ["--labels", str(tmp_path / "labels"), "--tracking-uri", tracking_uri]
        assert import_reviews.main([*argv, "--report", str(report), *flags]) == code
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 else {}

    return run


def labels(folder: Path) -> list[dict[str, Any]]:
    files = [str(file) for file in (folder / "labels").glob("*.parquet")]
    return sorted(ds.dataset(files).to_table().to_pylist(), key=lambda row: str(row["listing_id"]))


def test_decisions_are_imported_once(load: Import, tmp_path: Path) -> None:
    text = (
        "Listing ID,Category,Decision,Reviewer,Decided at\n"
        "a,c/caps,,ada,2026-11-25T10:00\n"
        "b,,not_in_taxonomy,ada,2026-11-25T10:01:30+01:00\n"
        "c ,c,,,\n"
    )
    figures = load(text, "--source", "review", "--reviewer", "grace")
    assert (figures["decisions"], figures["added"], figures["refused"]) == (3, 3, 0)
    assert figures["by_decision"] == {"category": 2, "not_in_taxonomy": 1}
    found = {row["listing_id"]: row for row in labels(tmp_path)}
    assert found["a"]["decided_at"] == datetime(2026, 11, 25, 10)
    assert found["a"]["category_id"] == "c/caps"
    assert found["b"]["decided_at"] == datetime(2026, 11, 25, 9, 1, 30)
    assert [found[name]["reviewer"] for name in ("a", "b", "c ")] == ["ada", "ada", "grace"]
    assert {row["source"] for row in found.values()} == {"review"}
    assert {row["task"] for row in found.values()} == {"category"}

    again = load(None, "--source", "review", "--reviewer", "grace")
    assert (again["added"], again["there_already"]) == (0, 3)
    assert len(labels(tmp_path)) == 3


def test_rules_have_a_reason_and_end(load: Import, tmp_path: Path) -> None:
    load("listing_id,category_id,reason,expires_at\na,c,recall 17,2027-01-01\n", "--source", "rule")
    (row,) = labels(tmp_path)
    assert (row["source"], row["reviewer"], row["reason"]) == ("rule", "decided.csv", "recall 17")
    assert row["expires_at"] == datetime(2027, 1, 1)


def test_categories_that_the_tree_lacks_are_refused(
    load: Import, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    figures = load("listing_id,category_id\na,c\nb,c/hats\n")
    assert (figures["refused"], figures["added"]) == (1, 1)
    assert "1 of 2 decisions are for categories that the taxonomy" in caplog.text
    assert "such as 'c/hats' of listing 'b'; they are refused" in caplog.text
    assert [row["listing_id"] for row in labels(tmp_path)] == ["a"]
    load("listing_id,category_id\nb,c/hats\n", code=3)
    assert "lacks, such as 'c/hats'" in error_line(capsys)


def test_agreement_of_those_who_saw_the_same_listing(load: Import) -> None:
    """Two of three pairs agree; a reviewer's newest decision counts."""
    figures = load(
        "listing_id,category_id,decision,reviewer,decided_at\n"
        "a,c,,ada,2026-11-25T10:00\na,c,,grace,2026-11-25T10:00\n"
        "b,c,,ada,2026-11-25T10:00\nb,,unsure,grace,2026-11-25T10:00\n"
        "b,c,,grace,2026-11-25T11:00\n"
        "c,c,,ada,2026-11-25T10:00\nc,c/caps,,grace,2026-11-25T10:00\n"
        "alone,c,,ada,2026-11-25T10:00\n"
    )
    assert (figures["listings"], figures["seen_by_several"]) == (4, 3)
    assert figures["agreement"] == 0.667


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("listing_id,category_id\n", "has no decision"),
        ("listing_id,name\na,b\n", "no column category_id or decision"),
        ("category_id\nc\n", "no column listing_id"),
        ("listing_id,category_id\n,c\n", "line 2: listing_id is empty"),
        ("listing_id,category_id,selection\na,c,luck\n", "column selection is 'luck', expected"),
        ("listing_id,decision\na,perhaps\n", "column decision is 'perhaps', expected one of"),
        ("listing_id,category_id,decision\na,c,unsure\n", "column category_id is 'c'"),
        ("listing_id,category_id,decided_at\na,c,today\n", "line 2: decided_at 'today' is not a"),
    ],
)
def test_a_wrong_table_is_refused(
    text: str, expected: str, load: Import, tmp_path: Path, capsys: Any
) -> None:
    load(text, code=3)
    assert expected in error_line(capsys)
    assert not (tmp_path / "labels").exists()
