"""The concepts of a screener: what they find, the rules for them, and their model on disk."""

import json

import numpy as np
import pytest

from schemas.errors import BundleError
from schemas.screening import Action
from seer_model.backbones.weights import random_backbone
from seer_model.linear_head import LinearHead
from seer_model.screener.concepts import (
    Concept,
    Concepts,
    ScreenerModel,
    load_screener_model,
    save_screener_model,
)
from seer_model.screener.folder import load_screener, save_screener
from seer_model.screener.rules import Rules
from seer_model.screener.screener import Screener


def concepts(width: int = 2) -> Concepts:
    """`first` is likely where the first feature is large, `second` where the second is."""
    weight = np.eye(2, width, dtype=np.float32)
    return Concepts(
        (
            Concept(name="first", review_at=0.5, block_at=0.9),
            Concept(name="second", review_at=0.5, block_at=None),
        ),
        LinearHead(weight, np.zeros(2, np.float32)),
    )


def photo(index: int, *features: float, reason: str | None = None):
    vector = None if reason else np.array(features, "<f2").tobytes()
    return {"image_index": index, "reject_reason": reason, "vector": vector}


def found(rules: dict, *photos):
    (findings,) = Screener(Rules.model_validate(rules), concepts=concepts()).screen([photos])
    return [(each.rule, each.action, each.image_index) for each in findings]


def test_the_strictest_threshold_reached_says_what_to_do():
    photos = (photo(0, -5, -5), photo(1, 1, -5), photo(2, 5, 5), photo(3, reason="corrupt"))
    assert found({}, *photos) == [
        ("first", Action.BLOCK, 2),
        ("first", Action.REVIEW, 1),
        ("second", Action.REVIEW, 2),
    ]
    (findings,) = Screener(Rules(), concepts=concepts()).screen([[photo(0, 0, -9)]])
    assert findings[0].score == pytest.approx(0.5)
    assert findings[0].evidence == "probability 0.500, review from 0.500 on"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([{"name": "first", "action": "allow"}], [("second", Action.REVIEW)]),
        ([{"name": "first", "action": "review"}], [("first", "review"), ("second", "review")]),
        (
            [{"name": "second", "action": "block", "least_score": 0.6}],
            [("first", "block"), ("second", "block")],
        ),
        # The model has no threshold to block it by.
        ([{"name": "second", "action": "block"}], [("first", "block"), ("second", "review")]),
        (
            [{"name": "first", "action": "block", "least_score": 0.999}],
            [("second", Action.REVIEW)],
        ),
    ],
)
def test_rules_take_the_place_of_the_thresholds(rules, expected):
    assert [each[:2] for each in found({"concept": rules}, photo(0, 3, 3))] == expected


def test_rules_that_cannot_be_honoured_are_said():
    rules = {
        "concept": [
            {"name": "second", "action": "block"},
            {"name": "third", "action": "review"},
            {"name": "first", "action": "block"},
        ]
    }
    unmet = Screener(Rules.model_validate(rules), concepts=concepts()).unmet_rules()
    assert [line.split(":")[0] for line in unmet] == [
        "the rule for the concept 'second'",
        "the rule for the concept 'third'",
    ]
    assert len(Screener(Rules.model_validate(rules)).unmet_rules()) == 3


def test_executors_get_the_concepts_without_the_backbone(tmp_path):
    save_screener(Rules(), None, concepts(), tmp_path / "screener")
    opened = load_screener(tmp_path / "screener")
    assert opened.concepts.concepts == concepts().concepts
    listing = [photo(0, 3, -3)]
    assert opened.screen([listing]) == Screener(Rules(), concepts=concepts()).screen([listing])


@pytest.fixture
def model(tmp_path):
    backbone = random_backbone("regnety_002", image_size=64)
    return save_screener_model(
        ScreenerModel(backbone, concepts(backbone.width), {"photos": 3}), tmp_path / "model"
    )


def test_a_model_is_what_was_saved(model, tmp_path):
    assert model.training == {"photos": 3}
    assert model.concepts.names == ["first", "second"]
    assert load_screener_model(tmp_path / "model").digest == model.digest
    again = save_screener_model(model, tmp_path / "model")
    assert again.digest == model.digest


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("concepts.json", {"concepts": []}, "its digest is not the one"),
        ("screener.json", {"format": "2.0"}, "format 2.0 is newer than 1.1"),
        ("screener.json", {"licence": "none"}, "licence is not the backbone's"),
        ("screener.json", {"files": {}}, "files must be exactly"),
    ],
)
def test_damage_is_refused_in_one_line(model, tmp_path, file, change, said):
    path = tmp_path / "model" / file
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | change), encoding="utf-8")
    with pytest.raises(BundleError) as error:
        load_screener_model(tmp_path / "model")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_foreign_files_are_refused(model, tmp_path):
    (tmp_path / "model" / "run.py").write_text("", encoding="utf-8")
    with pytest.raises(BundleError, match="does not belong into a screener"):
        load_screener_model(tmp_path / "model")
