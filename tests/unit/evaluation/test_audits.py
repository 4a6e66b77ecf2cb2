"""The precision of what was assigned, week by week, from what people said of some of it."""

from datetime import date, timedelta

import numpy as np
import pytest

from seer_model.evaluation.audits import AuditedDay, precision_by_week
from seer_model.evaluation.comparison import wilson_interval

MONDAY = date(2026, 11, 23)


def day(number: int, assigned: int, right: int, wrong: int, undecided: int = 0) -> AuditedDay:
    return AuditedDay(MONDAY + timedelta(days=number), assigned, right, wrong, undecided)


def test_a_single_day_is_a_share_with_its_interval() -> None:
    (week,) = precision_by_week([day(2, 1000, 45, 5, undecided=3)])
    assert (week.week, week.days, week.assigned) == (MONDAY, 1, 1000)
    assert (week.decided, week.right, week.undecided) == (50, 45, 3)
    assert week.precision == pytest.approx(0.9)
    assert (week.low, week.high) == pytest.approx(wilson_interval(45, 50))


def test_a_day_counts_by_what_it_assigned() -> None:
    (week,) = precision_by_week([day(0, 9000, 10, 0), day(1, 1000, 0, 10)])
    assert week.precision == pytest.approx(0.9)
    # Twenty decisions of so different weights are worth twelve.
    assert (week.low, week.high) == pytest.approx(wilson_interval(0.9 * 12.195, 12.195), abs=1e-3)


def test_weeks_begin_on_monday_and_come_in_order() -> None:
    weeks = precision_by_week([day(7, 10, 1, 0), day(6, 10, 1, 1), day(0, 30, 1, 0)])
    assert [week.week for week in weeks] == [MONDAY, MONDAY + timedelta(days=7)]
    assert [week.days for week in weeks] == [2, 1]


def test_nothing_was_decided() -> None:
    (week,) = precision_by_week([day(0, 10, 0, 0, undecided=4)])
    assert (week.precision, week.low, week.high, week.decided) == (None, None, None, 0)
    assert week.undecided == 4
    assert precision_by_week([]) == []


def test_the_interval_holds_the_truth_at_least_nineteen_times_of_twenty() -> None:
    """More often where days differ, since a sample by day varies less than one of all days."""
    rng = np.random.default_rng(0)
    assigned, drawn, precision = [5000, 800, 3000], [20, 30, 40], [0.95, 0.7, 0.9]
    truth = np.average(precision, weights=assigned)
    held = 0
    for _ in range(2000):
        right = rng.binomial(drawn, precision)
        (week,) = precision_by_week(
            [
                day(i, assigned[i], int(right[i]), int(drawn[i] - right[i]))
                for i in range(len(assigned))
            ]
        )
        held += week.low <= truth <= week.high
    assert 0.94 <= held / 2000 < 0.995
