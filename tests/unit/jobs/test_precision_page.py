"""The page of the estimated precision: its verdict, its table, and an empty one."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from jobs.pages.precision import precision_page
from seer_model.evaluation.audits import AuditedWeek

WEEK = AuditedWeek(date(2026, 11, 23), 5, 12_000, 80, 74, 3, 0.925, 0.85, 0.96)
BEFORE = replace(WEEK, week=WEEK.week - timedelta(days=7), precision=0.8, low=0.7, high=0.88)


def test_the_last_week_with_a_decision_is_the_verdict() -> None:
    waiting = replace(
        WEEK, week=date(2026, 11, 30), decided=0, right=0, precision=None, low=None, high=None
    )
    page = precision_page([BEFORE, WEEK, waiting], None)
    assert (
        "In the week from 2026-11-23, 92 % of the assigned listings were right (85 to 96 %)."
        in page
    )
    assert page.count("<tr><td>") == 3
    assert "<td>12,000</td><td>80</td><td>74</td><td>3</td><td>0.925 (0.850 to 0.960)</td>" in page
    assert "<td>-</td>" in page
    assert page.index("2026-11-30</td>") < page.index("2026-11-16</td>")
    assert '<img alt="Precision by week" src="data:image/png;base64,' in page


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        (0.84, "the target is 84 %, and it is met."),
        (0.9, "the target is 90 %, and these decisions cannot tell whether it is met."),
        (0.97, "the target is 97 %, and it is missed."),
    ],
)
def test_a_target_is_met_missed_or_open(target: float, verdict: str) -> None:
    assert verdict in precision_page([WEEK], target)


def test_nothing_was_decided_yet() -> None:
    page = precision_page([], 0.9)
    assert "Nobody has decided an assigned listing" in page
    assert "<table" not in page
    assert "<img" not in page
