"""An evaluation's record and the page made of it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.evaluation import Judged, evaluation_record, reliability, risk_coverage
from jobs.evaluation_page import FIGURES, evaluation_page
from seer_model.bundle import load_bundle
from seer_model.registry import ResolvedBundle
from tests.unit.evaluations import CATEGORIES, drawn_outcomes

LISTINGS = 240
ORIGIN = {
    "run_id": "r1",
    "evaluated_at": "2026-11-25T00:00:00+00:00",
    "manifest": "<script>manifest</script>",
    "ds": None,
    "splits": ["test"],
    "device": "cpu",
}


def judged(folder: Path, version: str, right: float, seed: int) -> Judged:
    model = ResolvedBundle(folder, load_bundle(folder), "shoes & hats", version)
    return Judged(model, drawn_outcomes(LISTINGS, right, seed))


@pytest.fixture(scope="module")
def pair(saved_bundle: Path) -> dict[str, Any]:
    slices = [{"region": "eu" if i % 3 else "<img src=x>"} for i in range(LISTINGS)]
    challenger = judged(saved_bundle, "2", 0.9, 1)
    return evaluation_record(challenger, judged(saved_bundle, "1", 0.5, 2), slices, ORIGIN, "cpu")


@pytest.fixture(scope="module")
def alone(saved_bundle: Path) -> dict[str, Any]:
    challenger = judged(saved_bundle, "1", 0.9, 1)
    return evaluation_record(challenger, None, [None] * LISTINGS, ORIGIN, "cpu")


class Page(HTMLParser):
    """What a reader sees, and what tags there are."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_record_is_json_with_both_models(pair: dict[str, Any]) -> None:
    record = json.loads(json.dumps(pair))
    assert record["challenger"]["model"] == "shoes & hats/2"
    assert record["champion"]["model"] == "shoes & hats/1"
    assert record["challenger"]["figures"].keys() >= {"top1", "level_1", "coverage_at_target"}
    assert record["challenger"]["photos_per_second"] > 0
    assert record["challenger"]["megabytes"] > 1
    assert record["challenger"]["parameters"] > 2_000_000
    assert record["differences"]["top1"]["low"] > 0
    assert sum(g["listings"] for g in record["categories"]) == LISTINGS
    assert {g["group"]: g["listings"] for g in record["slices"]} == {
        "region=eu": 160,
        "region=<img src=x>": 80,
    }
    assert record["missing_categories"] == []


def test_every_figure_shown_is_measured(pair: dict[str, Any]) -> None:
    assert FIGURES.keys() <= pair["challenger"]["figures"].keys()
    assert FIGURES.keys() - {"coverage_at_target"} <= pair["differences"].keys()


def test_without_a_champion(alone: dict[str, Any]) -> None:
    assert (alone["champion"], alone["differences"], alone["slices"]) == (None, {}, [])
    page = Page(evaluation_page(alone))
    assert "there is no champion beside it" in page.text
    assert "The manifest has no slices." in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 3


def test_the_page_stands_alone_and_escapes_names(pair: dict[str, Any]) -> None:
    html = evaluation_page(pair)
    page = Page(html)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 4
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in images)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "b"})
    assert "<script>manifest</script>" in page.text
    assert "<b>dolls</b>" in page.text
    assert "region=<img src=x>" in page.text
    assert not re.search(r"https?:", html)


def test_the_verdict_follows_the_interval(pair: dict[str, Any]) -> None:
    def verdict(low: float, high: float) -> str:
        top1 = {"value": (low + high) / 2, "low": low, "high": high}
        changed = {**pair, "differences": {**pair["differences"], "top1": top1}}
        return Page(evaluation_page(changed)).text

    assert "The challenger is better" in verdict(0.1, 0.2)
    assert "The challenger is worse" in verdict(-0.2, -0.1)
    assert "No difference beyond noise" in verdict(-0.1, 0.1)


def test_reliability_and_coverage_by_hand() -> None:
    outcomes = drawn_outcomes(LISTINGS, 0.8, 3)
    bins = reliability(outcomes)
    assert sum(b["listings"] for b in bins) == LISTINGS
    top = outcomes.confidence >= 0.9
    assert bins[-1]["right"] == pytest.approx(outcomes.hit[top].mean())
    curve = risk_coverage(outcomes)
    assert curve[-1] == (1.0, pytest.approx(outcomes.hit.mean()))
    surest = np.argmax(outcomes.confidence)
    assert curve[0] == (1 / LISTINGS, float(outcomes.hit[surest]))
    assert len(CATEGORIES) == len({*outcomes.labels})
