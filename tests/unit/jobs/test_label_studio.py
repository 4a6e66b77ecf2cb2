"""What is sent to Label Studio, and how its answers are read."""

import html
import json
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.label_studio.answers import read_answers
from jobs.label_studio.screen import as_task, as_tree, label_config
from schemas.errors import DataContractError
from schemas.taxonomy import Category, Taxonomy

TREE = Taxonomy(
    [
        Category("c/caps", ("Clothes & more", "Caps <b>"), "c"),
        Category("c", ("Clothes & more",), None),
        Category("unsure", ("Unsure",), None),
    ]
)
ROW = {
    "listing_id": "a <script>",
    "task": "category",
    "selection": "audit",
    "candidates": [
        {"category_id": "c/caps", "score": 0.514},
        {"category_id": "unsure", "score": 0.2},
        {"category_id": "retired", "score": 0.1},
    ],
}


def task(**row: Any) -> dict[str, Any]:
    return as_task(ROW | row, ['/x?a="b"&c', "https://shop.example/1.jpg"], TREE)


def annotated(
    answer: str | None, category: list[str] | None = None, **changes: Any
) -> dict[str, Any]:
    result: list[dict[str, Any]] = []
    if answer is not None:
        result.append({"from_name": "decision", "value": {"choices": [answer]}})
    if category is not None:
        result.append({"from_name": "category", "value": {"taxonomy": [category]}})
    return {
        "completed_by": 1,
        "updated_at": "2026-11-25T12:00:00.5Z",
        "was_cancelled": False,
        "result": result,
        **changes,
    }


def decided(*annotations: dict[str, Any]) -> list[dict[str, Any]]:
    tasks = [task() | {"annotations": list(annotations)}]
    answers = read_answers(tasks, {1: "ada@shop.example"}, "export")
    rows: list[dict[str, Any]] = answers.decisions.to_pylist()
    return rows


def test_a_task() -> None:
    data = task()["data"]
    assert data["listing_id"] == "a <script>"
    assert (data["selection"], data["taxonomy_version"]) == ("audit", TREE.version)
    assert data["photos"] == [
        {"html": '<img src="/x?a=&quot;b&quot;&amp;c" alt="photo 1 of 2">'},
        {"html": '<img src="https://shop.example/1.jpg" alt="photo 2 of 2">'},
    ]
    assert [(each["hotkey"], each["value"]) for each in data["answers"]] == [
        ("1", "category:c/caps"),
        ("2", "category:unsure"),
        ("3", "category:retired"),
        ("6", "another_category"),
        ("7", "unsure"),
        ("8", "not_in_taxonomy"),
        ("9", "bad_photo"),
        ("0", "violation"),
    ]
    assert data["answers"][0]["html"] == (
        "<b>Caps &lt;b&gt;</b> 0.51<br><small>Clothes &amp; more</small>"
    )


def test_a_listing_that_the_model_did_not_score() -> None:
    assert [each["hotkey"] for each in task(candidates=None)["data"]["answers"]] == list("67890")


def test_the_tree_in_the_layout_and_beside_it() -> None:
    assert as_tree(TREE) == [
        {
            "value": "Clothes & more",
            "alias": "c",
            "children": [{"value": "Caps <b>", "alias": "c/caps"}],
        },
        {"value": "Unsure", "alias": "unsure"},
    ]
    (inside,) = ElementTree.fromstring(label_config(TREE)).iter("Taxonomy")
    assert [node.attrib for node in inside.iter("Choice")] == [
        {"value": "Clothes & more", "alias": "c"},
        {"value": "Caps <b>", "alias": "c/caps"},
        {"value": "Unsure", "alias": "unsure"},
    ]
    (beside,) = ElementTree.fromstring(label_config(TREE, "https://x/t.json")).iter("Taxonomy")
    assert (beside.get("apiUrl"), list(beside)) == ("https://x/t.json", [])


def test_answers() -> None:
    rows = decided(
        annotated("category:c/caps"),
        annotated("another_category", ["c", "c/caps"]),
        annotated("category:unsure", completed_by={"id": 3, "email": "grace@shop.example"}),
        annotated("unsure", completed_by=9),
        # The tree was opened, and then a candidate was preferred.
        annotated("category:c/caps", ["unsure"]),
    )
    assert [(row["decision"], row["category_id"], row["reviewer"]) for row in rows] == [
        ("category", "c/caps", "ada@shop.example"),
        ("category", "c/caps", "ada@shop.example"),
        ("category", "unsure", "grace@shop.example"),
        ("unsure", None, "user 9"),
        ("category", "c/caps", "ada@shop.example"),
    ]
    assert {row["decided_at"] for row in rows} == {
        datetime(2026, 11, 25, 12, 0, 0, 500_000, tzinfo=UTC)
    }
    assert {(row["source"], row["selection"]) for row in rows} == {("review", "audit")}


def test_what_was_not_decided_is_counted() -> None:
    tasks = [
        task()
        | {
            "annotations": [
                annotated(None),
                annotated("another_category"),
                annotated("unsure", was_cancelled=True),
            ]
        }
    ]
    answers = read_answers(tasks, {}, "export")
    assert (len(answers.decisions), answers.unanswered, answers.skipped) == (0, 2, 1)


@given(st.text(min_size=1), st.text(min_size=1), st.lists(st.text(), min_size=1))
def test_any_ids_come_back(listing: str, category: str, names: list[str]) -> None:
    names = [name or "?" for name in names]
    path = Taxonomy(
        [
            Category(
                category if depth == len(names) else f"{category}/{depth}",
                tuple(names[:depth]),
                f"{category}/{depth - 1}" if depth > 1 else None,
            )
            for depth in range(1, len(names) + 1)
        ]
    )
    candidates = [{"category_id": category, "score": 1.0}]
    sent = as_task(ROW | {"listing_id": listing, "candidates": candidates}, ["/x"], path)
    first = sent["data"]["answers"][0]
    assert html.unescape(first["html"]).startswith(f"<b>{names[-1]}</b> 1.00")
    received = json.loads(json.dumps(sent)) | {"annotations": [annotated(first["value"])]}
    (row,) = read_answers([received], {}, "export").decisions.to_pylist()
    assert (row["listing_id"], row["category_id"]) == (listing, category)


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ({"tasks": []}, "expected a list of tasks"),
        ([{"data": {}}], "export, task 1: not a listing that jobs.export_reviews sent"),
        ([task() | {"annotations": [{"result": []}]}], None),
        ([task() | {"annotations": [annotated("unsure", updated_at="now")]}], "export, task 1"),
        ([task() | {"annotations": [annotated("unsure", result="?")]}], "export, task 1"),
        ([{"data": {"image": "x"}, "annotations": []}], "task 1: not a listing"),
        (["listing"], "export, task 1"),
    ],
)
def test_what_is_no_such_export(tasks: Any, expected: str | None) -> None:
    if expected is None:
        assert read_answers(tasks, {}, "export").unanswered == 1
        return
    with pytest.raises(DataContractError, match=expected):
        read_answers(tasks, {}, "export")
