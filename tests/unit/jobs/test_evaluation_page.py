"""The evaluation record and its page."""

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.pages import evaluation, evaluation_plots
from jobs.pages.evaluation import FIGURES, Mistake, evaluation_page, figures_shown
from seer_model.categorizer.bundle import ResolvedBundle, load_bundle
from seer_model.evaluation import record
from seer_model.evaluation.comparison import worst_confusions
from seer_model.evaluation.record import (
    EvaluatedModel,
    evaluation_record,
    reliability,
    risk_coverage,
)
from tests.support.evaluations import CATEGORIES, drawn_outcomes

LISTINGS = 240
IDS = [f"listing {i}" for i in range(LISTINGS)]
ORIGIN = {
    "run_id": "r1",
    "evaluated_at": "2026-11-25T00:00:00+00:00",
    "manifest": "<script>manifest</script>",
    "ds": None,
    "splits": ["test"],
    "device": "cpu",
}


def evaluated(folder: Path, version: str, right: float, seed: int) -> EvaluatedModel:
    model = ResolvedBundle(folder, load_bundle(folder), "shoes & hats", version)
    return EvaluatedModel(model, drawn_outcomes(LISTINGS, right, seed))


@pytest.fixture(scope="module")
def pair(saved_bundle: Path) -> dict[str, Any]:
    slices = [
        {"region": "eu" if i % 3 else "<img src=x>", "seller": f"s{i % 24}"}
        for i in range(LISTINGS)
    ]
    challenger, champion = (
        evaluated(saved_bundle, version, right, seed)
        for version, right, seed in (("2", 0.9, 1), ("1", 0.5, 2))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "_SECONDS_OF_SPEED", 0.05)
        return evaluation_record(challenger, champion, IDS, slices, ORIGIN, "cpu")


@pytest.fixture(scope="module")
def alone(saved_bundle: Path) -> dict[str, Any]:
    challenger = evaluated(saved_bundle, "1", 0.9, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "_photos_per_second", lambda backbone, device: 100.0)
        return evaluation_record(challenger, None, IDS, [None] * LISTINGS, ORIGIN, "cpu")


class Page(HTMLParser):
    """A parsed page: its tags and visible text."""

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
    read = json.loads(json.dumps(pair))
    assert read["challenger"]["model"] == "shoes & hats/2"
    assert read["champion"]["model"] == "shoes & hats/1"
    assert read["challenger"]["figures"].keys() >= {"top1", "level_1", "coverage_at_target"}
    assert read["challenger"]["photos_per_second"] > 0
    assert read["challenger"]["megabytes"] > 1
    assert read["challenger"]["parameters"] > 2_000_000
    assert read["differences"]["top1"]["low"] > 0
    assert sum(g["listings"] for g in read["categories"]) == LISTINGS
    slices = {g["group"]: g["listings"] for g in read["slices"]}
    assert (slices["region=eu"], slices["region=<img src=x>"]) == (160, 80)
    assert slices["seller=s7"] == 10
    [pooled] = read["pooled_slices"]
    assert pooled["group"] == "seller: 24 values of fewer than 20 listings"
    assert pooled["listings"] == LISTINGS
    assert pooled["difference"] == pytest.approx(read["differences"]["top1"], abs=0.03)
    assert read["paths"] == {}
    assert read["missing_categories"] == []


def test_the_worst_groups_are_shown_with_what_was_not_judged(pair: dict[str, Any]) -> None:
    [region] = pair["challenger"]["worst_groups"]
    assert {region["worst"], region["best"]} == {"eu", "<img src=x>"}
    assert pair["champion"]["worst_groups"][0]["gap"] != region["gap"]
    assert pair["much_worse"] == {"tested": 2, "worse": ()}
    small = {"small": [f"s{i}" for i in range(24)], "listings_without": 1234}
    model = {**pair["challenger"], "worst_groups": [region | small]}
    page = Page(evaluation_page({**pair, "challenger": model}))
    assert "s0, s1, s2, s3, s4 and 19 more groups; 1,234 listings without" in page.text
    assert "2 slices and pairs of slices" in page.text
    assert "none is worse by 0.05 or more" in page.text
    assert f"{region['gap']['value']:+.3f}" in page.text


def test_what_is_much_worse_is_shown_with_photos(
    saved_bundle: Path, photo_bytes: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "draw_plots", lambda _: [])
    monkeypatch.setattr(record, "_photos_per_second", lambda backbone, device: 100.0)
    challenger = evaluated(saved_bundle, "1", 0.9, 1)
    challenger.outcomes.hit[:60] = np.arange(60) % 3 == 0
    slices = [{"light": "<b>dark" if i < 60 else "normal"} for i in range(LISTINGS)]
    found = evaluation_record(challenger, None, IDS, slices, ORIGIN, "cpu")
    [worse] = found["much_worse"]["worse"]
    assert worse["group"] == "light=<b>dark"
    assert set(worse["examples"]) <= {IDS[i] for i in range(60) if i % 3}
    mistakes = [Mistake(listing, 0.5, photo_bytes()) for listing in worse["examples"][:2]]
    page = Page(evaluation_page(found, (), {worse["group"]: mistakes}))
    assert "light=<b>dark" in page.text
    assert "b" not in {tag for tag, _ in page.tags}
    assert [a["alt"] for tag, a in page.tags if tag == "img"] == worse["examples"][:2]


def test_every_figure_shown_is_measured(pair: dict[str, Any]) -> None:
    assert FIGURES.keys() <= pair["challenger"]["figures"].keys()
    assert FIGURES.keys() - {"coverage_at_target"} <= pair["differences"].keys()


def test_coverage_is_shown_by_level(pair: dict[str, Any]) -> None:
    shown = figures_shown(pair)
    assert {"exact_coverage", "coverage_level_1", "level_1"} <= shown.keys()
    figures = pair["challenger"]["figures"]
    assert figures["exact_coverage"] < figures["coverage"] == figures["coverage_level_1"]
    assert all(0 <= group["exact_coverage"] <= group["coverage"] for group in pair["categories"])
    text = Page(evaluation_page(pair)).text
    assert "exact coverage" in text
    assert "listings that were assigned a category of level 1" in text


def test_without_a_champion(alone: dict[str, Any]) -> None:
    assert (alone["champion"], alone["differences"], alone["slices"]) == (None, {}, [])
    page = Page(evaluation_page(alone))
    assert "there is no champion to compare with" in page.text
    assert "The manifest has no slices." in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 3


def test_the_page_stands_alone_and_escapes_names(
    pair: dict[str, Any], photo_bytes: Callable[..., bytes]
) -> None:
    [dolls, *_] = worst_confusions(drawn_outcomes(LISTINGS, 0.5, 2), most=1, examples=2)
    photo = photo_bytes()
    html = evaluation_page(pair, [(dolls, [Mistake('"><script>id', 0.934, photo)] * 2)])
    page = Page(html)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    kinds = [str(image["src"]).partition(";base64,")[0] for image in images]
    assert kinds == ["data:image/png"] * 4 + ["data:image/jpeg"] * 2
    assert base64.b64decode(str(images[-1]["src"]).partition(",")[2]) == photo
    assert images[-1]["alt"] == '"><script>id'
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "b"})
    for text in ("<script>manifest</script>", "<b>dolls</b>", "region=<img src=x>", "0.93"):
        assert text in page.text
    assert f"{dolls.listings} of {dolls.labelled}" in page.text
    assert not re.search(r"https?:", html)


def test_small_slices_are_one_row_and_long_tables_end(
    pair: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "draw_plots", lambda _: [])
    text = Page(evaluation_page(pair)).text
    assert "seller: 24 values of fewer than 20 listings" in text
    assert "seller=s7" not in text
    assert "more, in evaluation.json" not in text
    many = {
        **pair,
        "slices": [{**pair["slices"][0], "group": f"size={i}"} for i in range(262)],
        "categories": [{**pair["categories"][0], "group": f"category {i}"} for i in range(1234)],
        "missing_categories": [f"missing {i}" for i in range(232)],
        "paths": {"category 7": "Shoes > <i>Boots"},
    }
    text = Page(evaluation_page(many)).text
    assert "missing 19 and 212 more" in text
    assert "Shoes > <i>Boots" in text
    assert re.findall(r"and ([\d,]+) more, in evaluation.json", text) == ["213", "1,034"]
    assert "category 199" in text
    assert "category 200" not in text


@pytest.mark.parametrize("scale", [1, 0.3, 0.1, 0.03, 0.001, 0.0001, 0])
@pytest.mark.parametrize("to", [1, 0.7])
def test_labels_of_ticks_do_not_overlap(scale: float, to: float) -> None:
    one = {"value": 0.0, "low": -scale, "high": scale * to}
    differences = dict.fromkeys(FIGURES, one)
    figure = evaluation_plots.draw_figure(
        lambda axes: evaluation_plots._differences(axes, differences)
    )
    figure.canvas.draw()
    [axes] = figure.axes
    boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
    assert len(boxes) > 2
    assert all(one.x1 + 4 < other.x0 for one, other in pairwise(boxes))


def test_the_verdict_follows_the_interval(
    pair: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "draw_plots", lambda _: [])

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
