"""Two days side by side: what is counted and what moved most."""

from typing import Any

import pytest

from seer_model.evaluation.drift import compare_days
from tests.support.evaluations import RED, day_counts, drifted_days


@pytest.fixture(scope="module")
def drift() -> dict[str, Any]:
    return compare_days(*drifted_days())


def test_days_are_named_and_counted(drift: dict[str, Any]) -> None:
    assert drift["before"] == {
        "ds": "2026-11-24",
        "listings": 1000,
        "model": "colours version 1",
        "taxonomy_version": "2026-01",
    }
    assert (drift["after"]["listings"], drift["after"]["model"]) == (1000, "colours version 2")
    assert drift["decisions"] == {
        "assigned": {"before": 900, "after": 650},
        "needs_review": {"before": 90, "after": 350},
        "rejected": {"before": 10, "after": 0},
    }
    assert drift["review_reasons"] == {
        "unfamiliar": {"before": 0, "after": 0},
        "unsure": {"before": 90, "after": 350},
        "no_category": {"before": 0, "after": 0},
        "no_mapping": {"before": 0, "after": 0},
    }


def test_scores_are_counted_in_bins(drift: dict[str, Any]) -> None:
    bins = drift["scores"]
    assert len(bins["before"]) == len(bins["after"]) == 20
    assert (sum(bins["before"]), sum(bins["after"])) == (990, 1000)
    assert (bins["before"][4], bins["before"][19], bins["after"][16]) == (90, 500, 400)


def test_every_distribution_is_measured(drift: dict[str, Any]) -> None:
    measures = drift["measures"]
    for name in ("category", "top_level", "decision", "score"):
        assert measures[name]["psi"] > 0.2, name
    # The cold categories share a top level, where less moved.
    assert measures["top_level"]["psi"] < measures["category"]["psi"]
    assert measures["score"]["ks"] > 0.2
    assert measures["category"]["ks"] is None
    # Nothing was rejected on the second day, so there are no reasons to compare.
    assert measures["reject_reason"] is None


def test_what_moved_most_comes_first(drift: dict[str, Any]) -> None:
    moved = drift["moved_most"]
    assert [row["category_id"] for row in moved] == ["cold/blue", "warm/red", "cold"]
    assert (moved[0]["path"], moved[0]["before"], moved[0]["after"]) == ("Cold > Blue", 0, 400)
    assert moved[1]["share_before"] == pytest.approx(800 / 900)
    assert moved[1]["share_after"] == pytest.approx(200 / 650)


def test_only_the_most_moved_are_listed() -> None:
    categories = [("assigned", None, f"c{n:02d}", f"Top > {n}", n % 20) for n in range(40)]
    before = day_counts("2026-11-24", *((*category, 100) for category in categories))
    after = day_counts("2026-11-25", *((*c, 400 if c[2] == "c39" else 100) for c in categories))
    moved = compare_days(before, after)["moved_most"]
    assert len(moved) == 15
    assert moved[0]["category_id"] == "c39"


def test_days_that_hold_nothing() -> None:
    full, none = day_counts("2026-11-24", (*RED, 19, 500)), day_counts("2026-11-25")
    for days in ((full, none), (none, full), (none, none)):
        drift = compare_days(*days)
        assert set(drift["measures"].values()) == {None}
        assert drift["moved_most"] == []
