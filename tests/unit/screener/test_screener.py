"""Findings of listings: from signals to actions, saved and opened again."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demo.samples.products import KINDS
from demo.samples.scenes import draw_scene
from schemas.known_photos import KNOWN_PHOTOS
from schemas.screening import Action, FindingKind
from seer_model.photos.perceptual_hash import hash_photo
from seer_model.screener.folder import load_screener, save_screener, screener_digest
from seer_model.screener.known_photos import KnownPhotos, variant_hashes
from seer_model.screener.rules import Rules
from seer_model.screener.screener import Finding, Screener

RULES = Rules.model_validate({"text": [{"name": "sale", "action": "review", "phrases": ["sale"]}]})


def photo(index: int = 0, text: str | None = "", reason: str | None = None) -> dict[str, Any]:
    lines = None if text is None else [{"line": text, "score": 0.9, "share": 0.1}]
    stored = None if lines is None else {"made_by": "test", "lines": lines}
    return {"image_index": index, "reject_reason": reason, "hashes": None, "text": stored}


def screen(rules: Rules, *photos: dict[str, Any]) -> list[Finding]:
    (found,) = Screener(rules, None).screen([photos])
    return found


def test_a_finding_says_rule_photo_score_and_evidence() -> None:
    (found,) = screen(RULES, photo(0), photo(3, "Big SALE today"))
    assert found == Finding("sale", FindingKind.TEXT, Action.REVIEW, 3, 0.9, "sale")
    assert screen(RULES, photo(0)) == []


def test_long_evidence_is_cut() -> None:
    rules = Rules.model_validate({"text": [{"name": "all", "action": "block", "least_share": 0.1}]})
    (found,) = screen(rules, photo(text="word " * 100))
    assert len(found.evidence) == 200
    assert found.evidence.endswith("…")


@pytest.mark.parametrize(
    ("settings", "photos", "actions"),
    [
        ({}, [photo(0, None, "truncated")], ["review"]),
        ({}, [photo(0, None, "truncated"), photo(1)], []),
        ({"photos": "any"}, [photo(0, None, "truncated"), photo(1)], ["review"]),
        ({"photos": "any", "action": "block"}, [photo(0, None, "truncated")], ["block"]),
        ({"action": "allow"}, [photo(0, None, "truncated")], []),
        # It has a vector, and its text is not known.
        ({}, [photo(0, None), photo(1)], ["review"]),
        ({"action": "allow"}, [photo(0, None)], []),
    ],
)
def test_what_cannot_be_read_is_a_finding(
    settings: dict[str, str], photos: list[dict[str, Any]], actions: list[str]
) -> None:
    rules = Rules.model_validate({**RULES.model_dump(), "unreadable": settings})
    assert [found.action for found in screen(rules, *photos)] == actions


def test_without_rules_for_text_it_is_not_missed() -> None:
    assert screen(Rules(), photo(0, None)) == []


def test_a_saved_screener_is_the_same(tmp_path: Path) -> None:
    pixels = np.asarray(draw_scene(KINDS[0], 1, np.random.default_rng(1)))
    rows = [
        dict(zip(KNOWN_PHOTOS.names, ("it", "stolen", "block", name, each), strict=True))
        for name, each in variant_hashes(pixels)
    ]
    table = pa.Table.from_pylist(rows, schema=KNOWN_PHOTOS)
    pq.write_table(table, tmp_path / "known.parquet")
    screener = Screener(RULES, KnownPhotos(table))
    save_screener(RULES, tmp_path / "known.parquet", None, tmp_path / "saved")
    opened = load_screener(tmp_path / "saved")
    copy = photo() | {"hashes": hash_photo(pixels)._asdict()}
    for each in (screener, opened):
        found = each.screen([[photo()], [copy, photo(1, "sale")]])
        assert [[finding.rule for finding in listing] for listing in found] == [
            [],
            ["stolen", "sale"],
        ]
    save_screener(Rules(), None, None, tmp_path / "alone")
    assert load_screener(tmp_path / "alone").known is None


def test_the_digest_is_of_the_rules_and_the_list(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"a list")
    other.write_bytes(b"another")
    digests = [
        screener_digest(rules, known) for rules in (RULES, Rules()) for known in (None, one, other)
    ]
    assert len(set(digests)) == 6
    again = Rules.model_validate(RULES.model_dump())
    assert screener_digest(again, one) == digests[1]
