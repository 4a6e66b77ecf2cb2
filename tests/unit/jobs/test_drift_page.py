"""The drift page."""

import re

import pytest

from jobs.pages.drift import drift_page
from seer_model.evaluation.drift import DayCounts, compare_days
from tests.support.evaluations import COLD, RED, REVIEW, day_counts, drifted_days


def test_the_page_shows_both_days_and_marks_what_moved() -> None:
    page = drift_page(compare_days(*drifted_days()), 0.2)
    for part in ("2026-11-24", "2026-11-25", "Cold &gt; Blue", "35.0 %", "0 → 400", "<svg"):
        assert part in page
    assert page.count('class="beyond">') >= 5
    assert "The model changed" in page
    assert "http" not in page.replace("http-equiv", "")
    same = compare_days(
        day_counts("2026-11-24", (*RED, 19, 500)), day_counts("2026-11-25", (*RED, 19, 480))
    )
    assert 'class="beyond"' not in drift_page(same, 0.2)


@pytest.mark.parametrize(
    ("days", "bound", "verdict"),
    [
        pytest.param(
            drifted_days(),
            0.2,
            "Look into it: scores, categories, top categories and decisions moved a lot since "
            "2026-11-24. The model changed, from colours version 1 to colours version 2, which may "
            "be why.",
            id="drift",
        ),
        pytest.param(
            (
                day_counts("2026-11-24", (*RED, 19, 5000), (*REVIEW, 4, 500)),
                day_counts("2026-11-25", (*RED, 19, 4700), (*REVIEW, 4, 800)),
            ),
            0.2,
            "No alarm: decisions and scores moved a little since 2026-11-24.",
            id="a little",
        ),
        pytest.param(
            (
                day_counts("2026-11-24", (*RED, 19, 500), (*COLD, 15, 100)),
                day_counts("2026-11-25", (*RED, 19, 480), (*COLD, 15, 110)),
            ),
            0.2,
            "All is as on 2026-11-24: what differs is within chance.",
            id="chance",
        ),
        pytest.param(
            (day_counts("2026-11-24"), day_counts("2026-11-25", (*RED, 19, 500))),
            0.2,
            "The days cannot be compared: one of them has no listings.",
            id="no listings",
        ),
    ],
)
def test_the_page_opens_with_a_verdict(
    days: tuple[DayCounts, DayCounts], bound: float, verdict: str
) -> None:
    page = drift_page(compare_days(*days), bound)
    opening = page[page.index("<h1>") : page.index("<h2>")]
    assert verdict in opening
    assert ("beyond" in opening) == verdict.startswith("Look into it")


def test_what_moved_most_follows_in_words() -> None:
    page = drift_page(compare_days(*drifted_days()), 0.2)
    table = page[page.index("What moved most") : page.index("<h2>Categories")]
    rows = [re.sub(r"<[^>]*>", "|", row) for row in table.split("<tr>")[2:]]
    assert [re.sub(r"\s*\|+\s*", "|", row).strip("|\n") for row in rows] == [
        "scores|from 0.80 to 0.85|0.0 %|40.0 %|of the scored|5.238",
        "categories|Cold &gt; Blue|0.0 %|61.5 %|of the assigned|4.909",
        "top categories|Cold|11.1 %|69.2 %|of the assigned|1.657",
        "decisions|needs review|9.0 %|35.0 %|of listings|0.445",
    ]


def test_the_share_of_unfamiliar_listings_is_shown_by_day() -> None:
    days = [
        {"ds": "2026-11-25", "listings": 1500, "unfamiliar": 60},
        {"ds": "2026-11-24", "listings": 1000, "unfamiliar": 19},
    ]
    page = drift_page({**compare_days(*drifted_days()), "days": days}, 0.2)
    table = page[page.index("<h2>Unfamiliar") : page.index("<h2>Scores")]
    assert re.findall(r"<td>(.*?)</td>", table) == [
        *("2026-11-25", "1,500", "60", "4.0 %"),
        *("2026-11-24", "1,000", "19", "1.9 %"),
    ]


def test_names_are_escaped() -> None:
    evil = ("assigned", None, "<script>alert(1)</script>", "<img src=x>", 10, 500)
    page = drift_page(
        compare_days(day_counts("2026-11-24", evil), day_counts("2026-11-25", evil)), 0.2
    )
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<img" not in page


def test_a_day_without_listings_has_a_page() -> None:
    full, none = day_counts("2026-11-24", (*RED, 19, 500)), day_counts("2026-11-25")
    for days in ((full, none), (none, full), (none, none)):
        assert "one of the days has none" in drift_page(compare_days(*days), 0.2)
