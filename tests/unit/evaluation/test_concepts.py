"""A screener's evaluation, and the gates of its promotion."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from seer_model.backbones.weights import random_backbone
from seer_model.evaluation.concepts import ConceptScores, concept_record
from seer_model.evaluation.gates import check_gates, read_gates
from seer_model.linear_head import LinearHead
from seer_model.screener.concepts import Concept, Concepts, ResolvedScreener, ScreenerModel

LISTINGS = 400
RNG = np.random.default_rng(0)
HAS = {
    "weapon": (RNG.random(LISTINGS) < 0.3).astype(np.int8),
    "logo": np.where(RNG.random(LISTINGS) < 0.5, -1, RNG.random(LISTINGS) < 0.2).astype(np.int8),
    "never seen": np.full(LISTINGS, -1, np.int8),
}


def screener(version: str, *names: str) -> ResolvedScreener:
    backbone = random_backbone("regnety_002", image_size=64)
    concepts = tuple(Concept(name=name, review_at=0.5, block_at=0.9) for name in names)
    zeros = np.zeros((len(names), backbone.width), np.float32)
    head = LinearHead(zeros, zeros[:, 0])
    training = {"target_recall": 0.9, "target_precision": 0.9}
    model = ScreenerModel(backbone, Concepts(concepts, head), training, "digest")
    return ResolvedScreener(Path(), model, "screener", version)


def scores(version: str, *names: str, noise: float = 0.0) -> ConceptScores:
    """A screener that is right but for noise."""
    columns = [np.where(HAS[name] == 1, 0.95, 0.05) for name in names]
    noisy = np.stack(columns, axis=1)
    flipped = np.random.default_rng(1).random(noisy.shape) < noise
    return ConceptScores(screener(version, *names), np.where(flipped, 1 - noisy, noisy))


def record(challenger: ConceptScores, champion: ConceptScores | None = None):
    origin = {
        "run_id": "run",
        "evaluated_at": datetime.now(UTC).isoformat(),
        "splits": ["test"],
        "manifest": "manifest",
    }
    return concept_record(challenger, champion, HAS, origin)


def gates(evaluation, champion: str | None = None):
    found = check_gates(read_gates(None), evaluation, "screener/2", champion)
    return {gate.gate: gate.passed for gate in found}


def test_what_is_measured_is_of_the_listings_that_somebody_labelled():
    found = record(scores("2", "weapon", "logo", "never seen"))
    assert found["unmeasured"] == ["never seen"]
    weapon, logo = found["challenger"]["concepts"].values()
    assert (weapon["listings"], weapon["with_it"]) == (LISTINGS, int((HAS["weapon"] == 1).sum()))
    assert logo["listings"] == int((HAS["logo"] >= 0).sum())
    assert (weapon["recall"], weapon["block_precision"]) == (1.0, 1.0)
    assert weapon["recall_interval"][0] > 0.95
    assert found["challenger"]["figures"]["average_precision"] == 1.0
    assert found["differences"] == {}


def test_a_good_first_screener_passes_and_one_with_an_unmeasured_concept_does_not():
    assert all(gates(record(scores("2", "weapon", "logo"))).values())
    failed = gates(record(scores("2", "weapon", "never seen")))
    assert [name for name, passed in failed.items() if not passed] == ["labels"]


def test_low_recall_and_wrong_blocks_are_refused():
    failed = gates(record(scores("2", "weapon", "logo", noise=0.3)))
    assert {name for name, passed in failed.items() if not passed} == {"recall", "block_precision"}


def test_a_challenger_must_not_lose_what_the_champion_finds():
    champion = scores("1", "weapon", "logo")
    better = record(scores("2", "weapon", "logo"), champion)
    assert better["differences"]["weapon"]["value"] == pytest.approx(0)
    assert all(gates(better, "screener/1").values())
    worse = gates(record(scores("2", "weapon", "logo", noise=0.2), champion), "screener/1")
    assert not worse["average_precision"]
    without = record(scores("2", "weapon"), champion)
    assert without["missing_concepts"] == ["logo"]
    assert not gates(without, "screener/1")["concepts"]
    more = record(scores("2", "weapon", "logo"), scores("1", "weapon"))
    assert all(gates(more, "screener/1").values())
    assert list(more["differences"]) == ["weapon"]
