"""The precision of what was assigned, estimated from decisions on listings drawn at random."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from seer_model.evaluation.comparison import wilson_interval

__all__ = ["AuditedDay", "AuditedWeek", "precision_by_week"]


@dataclass(frozen=True)
class AuditedDay:
    """A day's assigned listings, of which some were drawn at random.

    Attributes:
        ds: The day.
        assigned: How many were assigned.
        right: Drawn ones whose assigned category is the one decided for, or an ancestor of it.
        wrong: Drawn ones of which it is not.
        undecided: Drawn ones of which nobody said enough, or nothing yet.
    """

    ds: date
    assigned: int
    right: int
    wrong: int
    undecided: int


@dataclass(frozen=True)
class AuditedWeek:
    """The precision of a week.

    Attributes:
        week: Its Monday.
        days: How many of its days have a decision.
        assigned: Listings assigned on those days.
        decided: Drawn listings that were decided.
        right: How many of them are right.
        undecided: Drawn listings of all its days that were not decided.
        precision: Estimated share of the assigned listings that are right; None if none was
            decided.
        low: Lower end of its 95 % interval.
        high: Its upper end.
    """

    week: date
    days: int
    assigned: int
    decided: int
    right: int
    undecided: int
    precision: float | None
    low: float | None
    high: float | None


def precision_by_week(days: Sequence[AuditedDay]) -> list[AuditedWeek]:
    """Estimate the precision of each week, the first one first.

    A day counts by how many listings it assigned, however many of them were drawn (a stratified
    sample). The interval is Wilson's for as many listings as the weighted sample is worth (Kish
    1965): the square of the sum of the weights over the sum of their squares.
    """
    by_week: dict[date, list[AuditedDay]] = {}
    for day in days:
        by_week.setdefault(day.ds - timedelta(days=day.ds.weekday()), []).append(day)
    return [_week(week, by_week[week]) for week in sorted(by_week)]


def _week(week: date, days: Sequence[AuditedDay]) -> AuditedWeek:
    undecided = sum(day.undecided for day in days)
    days = [day for day in days if day.right + day.wrong]
    assigned = sum(day.assigned for day in days)
    right, decided = sum(day.right for day in days), sum(day.right + day.wrong for day in days)
    precision, low, high = None, None, None
    if decided:
        shares = [day.assigned / assigned for day in days]
        drawn = [day.right + day.wrong for day in days]
        precision = sum(
            share * day.right / n for share, day, n in zip(shares, days, drawn, strict=True)
        )
        worth = 1 / sum(share**2 / n for share, n in zip(shares, drawn, strict=True))
        low, high = wilson_interval(precision * worth, worth)
    return AuditedWeek(week, len(days), assigned, decided, right, undecided, precision, low, high)
