"""Figures of quality, by hand and within their bounds."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.taxonomy import Taxonomy
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.scoring import SCORES
from seer_model.evaluation.metrics import (
    Quality,
    coverage_at,
    measure_quality,
    weighted_figures,
)
from seer_model.evaluation.outcomes import Outcomes, compare_with_labels


@pytest.fixture(scope="module")
def tree(taxonomy: Taxonomy, classes: tuple[str, ...]) -> ClassTree:
    return ClassTree(taxonomy, classes)


def row(candidates: dict[str, float], category: str | None = None) -> dict[str, Any]:
    """A scored listing: assigned to `category`, or to be reviewed."""
    return {
        "listing_id": "L",
        "decision": "assigned" if category else "needs_review",
        "category_id": category,
        "category_path": None,
        "score": max(candidates.values()),
        "candidates": [{"category_id": c, "score": s} for c, s in candidates.items()],
        "reject_reason": None,
        "images_used": 1,
        "images_rejected": 0,
        "image_rejects": None,
    }


REJECTED = row({"a-1-1": 0.0}) | {
    "decision": "rejected",
    "score": None,
    "candidates": [],
    "reject_reason": "no_photo",
    "images_used": 0,
    "images_rejected": 1,
}


Labelled = tuple[str, dict[str, Any]]


def outcomes_of(tree: ClassTree, rows: list[Labelled]) -> Outcomes:
    table = pa.Table.from_pylist([found for _, found in rows], schema=SCORES)
    return compare_with_labels(tree, [label for label, _ in rows], table)


def measure(tree: ClassTree, rows: list[Labelled]) -> Quality:
    return measure_quality(outcomes_of(tree, rows))


def test_by_hand(tree: ClassTree) -> None:
    quality = measure(
        tree,
        [
            # Right, assigned to the class.
            ("a-1-1", row({"a-1-1": 0.75, "a-1-2": 0.25}, "a-1-1")),
            # Wrong class of the right parent; the parent was assigned, which is right.
            ("a-1-2", row({"a-1-1": 0.5, "a-1-2": 0.25, "t-1": 0.25}, "a-1")),
            # Wrong, assigned.
            ("t-1", row({"f-1-1": 0.875, "f-1-2": 0.125}, "f-1-1")),
            # Wrong, not assigned.
            ("a-2-1", row({"f-1-2": 0.5, "a-2-1": 0.25})),
            # Right, not assigned.
            ("t-1", row({"t-1": 0.75})),
            # No class of this model, but the parent that was assigned is right.
            ("f-1", row({"f-1-1": 0.625}, "f")),
            ("a-1-1", REJECTED),
            ("f-1-1", REJECTED),
        ],
    )
    assert quality == Quality(
        listings=8,
        photographed=6,
        known=7 / 8,
        top1=2 / 6,
        top5=4 / 6,
        parent=3 / 6,
        coverage=4 / 8,
        precision=3 / 4,
        exact_coverage=2 / 8,
        # The paths assigned have 3 + 2 + 3 + 1 categories, of which 3, 2, 0 and 1 are on the
        # labels' paths; these have 3 + 3 + 2 + 3 + 2 + 2 + 3 + 3.
        hierarchical_precision=6 / 9,
        hierarchical_recall=6 / 21,
        # The best class has the label's category: of all six tops 1, 1, 0, 0, 1, 1; of the six
        # second ones the same; of the three third ones 1, 0, 0.
        levels=(4 / 6, 4 / 6, 1 / 3),
        coverage_levels=(1 / 8, 1 / 8, 2 / 8),
        # Bins 5 (0.5, 0.5), 6 (0.625), 7 (0.75, 0.75), 8 (0.875); hits 0, 0, 2, 0.
        calibration_error=pytest.approx((1.0 + 0.625 + 0.5 + 0.875) / 6),
    )
    assert quality.figures()["precision"] == 0.75
    assert quality.figures()["level_3"] == pytest.approx(1 / 3)
    assert quality.figures()["coverage_level_3"] == 2 / 8


def test_nothing_assigned(tree: ClassTree) -> None:
    quality = measure(tree, [("t-1", row({"t-1": 1.0}))])
    assert (quality.coverage, quality.exact_coverage, quality.precision) == (0, 0, None)
    assert (quality.top1, quality.calibration_error) == (1, 0)
    assert "precision" not in quality.figures()


def test_nothing_read(tree: ClassTree) -> None:
    quality = measure(tree, [("t-1", REJECTED), ("a-1-1", REJECTED)])
    assert (quality.listings, quality.photographed) == (2, 0)
    assert (quality.top1, quality.top5, quality.parent, quality.calibration_error) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("label", "category", "exact"),
    [
        pytest.param("a-1", "a-1", 0, id="an ancestor that is the label"),
        pytest.param("t-1", "a-2-1", 1, id="a class that is neither best nor right"),
        pytest.param("a-1-1", "a-1-1", 1, id="the class"),
        pytest.param("a-1-2", "a", 0, id="an ancestor"),
    ],
)
def test_exact_is_about_the_category(
    tree: ClassTree, label: str, category: str, exact: int
) -> None:
    assert measure(tree, [(label, row({"a-1-1": 0.5}, category))]).exact_coverage == exact


def test_coverage_of_a_level_deeper_than_all_labels(tree: ClassTree) -> None:
    quality = measure(tree, [("a", row({"a-1-1": 0.5}, "a-1-1"))])
    assert (quality.levels, quality.coverage_levels) == ((1,), (0, 0, 1))


def test_the_parents_of_top_categories_differ(tree: ClassTree, taxonomy: Taxonomy) -> None:
    tops = ClassTree(taxonomy, ["a", "f", "t"])
    assert measure(tops, [("a", row({"f": 1.0}))]).parent == 0
    assert measure(tops, [("a", row({"a": 1.0}))]).parent == 1
    assert measure(tree, [("nosuch", row({"t-1": 1.0}))]).parent == 0


def test_the_sixth_candidate_does_not_count(tree: ClassTree) -> None:
    five = dict.fromkeys(tree.classes[:5], 0.2)
    rows = [(label, row(five)) for label in tree.classes]
    assert measure(tree, rows).top5 == pytest.approx(5 / 6)


def test_no_rows_or_other_labels(tree: ClassTree) -> None:
    with pytest.raises(ValueError, match="0 labels for 0 listings"):
        measure(tree, [])
    with pytest.raises(ValueError, match="1 labels for 2 listings"):
        compare_with_labels(tree, ["t-1"], pa.Table.from_pylist([REJECTED] * 2, schema=SCORES))


@st.composite
def scored_rows(draw: st.DrawFn, names: tuple[str, ...], all_names: tuple[str, ...]) -> Any:
    if draw(st.booleans()) and draw(st.booleans()):
        return draw(st.sampled_from(all_names)), REJECTED
    order = draw(st.permutations(names))[: draw(st.integers(1, 5))]
    score = draw(st.floats(0, 1, width=32))
    category = draw(st.sampled_from([None, *all_names]))
    candidates = {name: score / (i + 1) for i, name in enumerate(order)}
    return draw(st.sampled_from([*all_names, "nosuch"])), row(candidates, category)


@given(st.data())
def test_bounds(tree: ClassTree, data: st.DataObject) -> None:
    names = tuple(category.category_id for category in tree.taxonomy)
    rows = data.draw(st.lists(scored_rows(tree.classes, names), min_size=1, max_size=12))
    quality = measure(tree, rows)
    assert all(0 <= share <= 1 for share in list(quality.figures().values())[2:])
    assert quality.top1 <= quality.top5
    assert quality.top1 <= quality.parent
    assert quality.exact_coverage <= quality.coverage == pytest.approx(sum(quality.coverage_levels))
    assert quality.photographed <= quality.listings == len(rows)
    assert (quality.precision is None) == (quality.coverage == 0)
    backwards = measure(tree, rows[::-1])
    assert backwards.figures() == pytest.approx(quality.figures())


@given(st.data())
def test_a_listing_drawn_twice_counts_as_two(tree: ClassTree, data: st.DataObject) -> None:
    names = tuple(category.category_id for category in tree.taxonomy)
    rows = data.draw(st.lists(scored_rows(tree.classes, names), min_size=2, max_size=8))
    draws = data.draw(
        st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)).filter(any)
    )
    outcomes = outcomes_of(tree, rows)
    drawn = weighted_figures(outcomes, np.array([draws, [1] * len(rows)], np.float64))
    again = measure(tree, [r for r, n in zip(rows, draws, strict=True) for _ in range(n)]).figures()
    once = measure_quality(outcomes).figures()
    for name, (first, second) in drawn.items():
        if not np.isnan(first):
            assert first == pytest.approx(again.get(name, 0))
        if not np.isnan(second):
            assert second == pytest.approx(once[name])


def test_coverage_at_a_precision_by_hand(tree: ClassTree) -> None:
    rows = [
        ("t-1", row({"t-1": 0.9})),
        ("t-1", row({"a-1-1": 0.8})),
        ("t-1", row({"t-1": 0.7})),
        # A tie, which no threshold parts.
        ("t-1", row({"t-1": 0.6})),
        ("t-1", row({"a-1-1": 0.6})),
        ("t-1", REJECTED),
    ]
    outcomes = outcomes_of(tree, rows)
    assert coverage_at(outcomes, 1.0) == 1 / 6
    assert coverage_at(outcomes, 0.66) == 3 / 6
    assert coverage_at(outcomes, 0.5) == 5 / 6
    wrong = outcomes_of(tree, [("a-1-2", row({"t-1": 1.0}))])
    assert coverage_at(wrong, 0.9) == 0
    unread = outcomes_of(tree, [("a-1-2", REJECTED)])
    assert coverage_at(unread, 0.9) == 0
