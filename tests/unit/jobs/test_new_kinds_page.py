"""The page of new kinds."""

from typing import Any

from jobs.pages.new_kinds import Cluster, new_kinds_page

FIGURES: dict[str, Any] = {
    "ds": "2026-11-25",
    "model": "colours version 1",
    "review_reasons": ["unfamiliar"],
    "listings": 100_000,
    "to_review": 3000,
    "looked_at": 3000,
    "without_vector": 0,
    "clustered": 1200,
    "clusters": 1,
}


def test_a_cluster_has_its_size_its_nearest_categories_and_photos() -> None:
    nearest = [("Warm > Red", 0.61), ("Cold > Blue", 0.2)]
    page = new_kinds_page(FIGURES, [Cluster(1, 1200, nearest, {"listing 7": b"JPEG"})])
    assert "3,000 of 100,000 listings (3.0 %) need review as unfamiliar" in page
    assert "Cluster 1: 1,200 listings" in page
    assert "Warm &gt; Red (0.61); Cold &gt; Blue (0.20)" in page
    assert '<img alt="listing 7" src="data:image/jpeg;base64,SlBFRw==">' in page
    for said_where_true in ("Only ", "left out", "in the table alone"):
        assert said_where_true not in page


def test_what_is_not_shown_is_said() -> None:
    few = FIGURES | {"to_review": 9000, "looked_at": 4000, "without_vector": 3, "clusters": 22}
    page = new_kinds_page(few, [Cluster(1, 80, [], {})])
    assert "Only 4,000 of them" in page
    assert "3 of them were left out" in page
    assert "21 smaller clusters are in the table alone" in page


def test_names_are_escaped() -> None:
    evil = "<script>alert(1)</script>"
    page = new_kinds_page(FIGURES | {"model": evil}, [Cluster(1, 8, [(evil, 1)], {evil: b""})])
    assert page.count("&lt;script&gt;") == 5
    assert "<script" not in page
