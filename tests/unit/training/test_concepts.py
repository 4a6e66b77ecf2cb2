"""Learning concepts: what they find, what they promise, and what cannot be learned."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from seer_model.categorizer.calibration import ERROR
from seer_model.training.concepts import (
    LabelledConcepts,
    fit_concepts,
    listing_scores,
    recall_threshold,
)

WIDTH = 16
TARGETS = {"target_recall": 0.9, "target_precision": 0.9}


def labelled(listings: int = 600, *, in_val: bool = True, distance: float = 3.0, seed: int = 0):
    """Listings of one to three photos; one photo of every third listing shows `weapon`."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=WIDTH)
    direction *= distance / np.linalg.norm(direction)
    ids, vectors, shows, val = [], [], [], []
    for number in range(listings):
        photos = rng.integers(1, 4)
        which = rng.integers(photos) if number % 3 == 0 else -1
        for photo in range(photos):
            has = photo == which
            ids.append(f"listing-{number:04}")
            vectors.append(rng.normal(size=WIDTH) + has * direction)
            shows.append([int(has), -1])
            val.append(in_val and number % 2 == 0)
    return LabelledConcepts(
        ids,
        np.array(vectors, np.float16),
        ["weapon", "never asked"],
        np.array(shows, np.int8),
        np.array(val),
        np.zeros(len(ids), bool),
    )


def found_by(concepts, photos: LabelledConcepts):
    """Each listing's probability, and whether it has the concept."""
    _, listing = np.unique(photos.listing_ids, return_inverse=True)
    scores = concepts.probabilities([vector.tobytes() for vector in photos.vectors])[:, 0]
    has = listing_scores((photos.shows[:, 0] == 1).astype(float), listing) > 0
    return listing_scores(scores.astype(float), listing), has


@pytest.mark.parametrize(("in_val", "how"), [(True, "val"), (False, "cross-fitting")])
def test_it_finds_what_it_learned_and_keeps_its_promises(in_val, how):
    fitted = fit_concepts(labelled(in_val=in_val), **TARGETS)
    assert fitted.concepts.names == ["weapon"]
    assert fitted.left_out == {
        "never asked": "0 listings to learn from have it, and 0 lack it",
    }
    figures = fitted.figures["weapon"]
    assert figures["calibrated_on"] == how
    assert figures["recall_labels_missing"] == 0
    assert figures["recall"] >= TARGETS["target_recall"]
    (concept,) = fitted.concepts.concepts
    assert concept.review_at <= concept.block_at
    # The direction is that of seed 0 only if the seed is: other listings of the same kind.
    fresh = labelled(3000, seed=0)
    scores, has = found_by(fitted.concepts, fresh)
    assert (scores >= concept.review_at)[has].mean() >= TARGETS["target_recall"] - 0.03
    assert has[scores >= concept.block_at].mean() >= TARGETS["target_precision"] - 0.03
    # Probabilities are calibrated: as many have it as they say.
    assert abs(scores.mean() - has.mean()) < 0.05


def test_the_same_again_and_other_concepts_beside_it_change_nothing():
    photos = labelled(200)
    one = fit_concepts(photos, **TARGETS)
    assert fit_concepts(photos, **TARGETS).figures == one.figures
    more = np.concatenate([photos.shows[:, :1], photos.shows[:, :1] ^ 1], axis=1)
    both = fit_concepts(photos._replace(names=["weapon", "other"], shows=more), **TARGETS)
    assert both.figures["weapon"] == one.figures["weapon"]
    assert np.array_equal(both.concepts.head.weight[0], one.concepts.head.weight[0])


def test_what_nothing_tells_apart_promises_nothing():
    fitted = fit_concepts(labelled(300, distance=0.0), **TARGETS)
    if fitted.concepts is not None:  # A slope below 0 leaves it out.
        (concept,) = fitted.concepts.concepts
        assert concept.block_at is None
        assert fitted.figures["weapon"]["reviewed_share"] > 0.8


def test_few_labels_are_said():
    fitted = fit_concepts(labelled(30), **TARGETS)
    missing = fitted.figures["weapon"]["recall_labels_missing"]
    has = fitted.figures["weapon"]["with_it"]
    assert has + missing == math.ceil(math.log(ERROR) / math.log(0.9))
    assert fitted.figures["weapon"]["recall"] == 1.0


def test_nothing_is_calibrated_on_what_a_model_chose():
    photos = labelled(300, in_val=False)
    chosen = photos._replace(chosen=photos.shows[:, 0] == 1)
    assert fit_concepts(chosen, **TARGETS).left_out["weapon"].startswith("a model chose all")


def test_a_concept_that_every_listing_has_is_left_out():
    photos = labelled(60)
    everywhere = photos._replace(shows=np.ones_like(photos.shows))
    left_out = fit_concepts(everywhere, **TARGETS).left_out
    assert left_out["weapon"] == "60 listings to learn from have it, and 0 lack it"


@given(st.integers(1, 400), st.floats(0.5, 0.99), st.integers(0, 2**32 - 1))
def test_the_recall_threshold_misses_no_more_than_is_shown(count, target, seed):
    scores = np.random.default_rng(seed).random(count).round(2)  # With ties.
    found = recall_threshold(scores, target)
    assert found.threshold in scores
    missed = int((scores < found.threshold).sum())
    if found.labels_missing:
        assert missed == 0
        assert target ** (count + found.labels_missing) <= ERROR
        assert target ** (count + found.labels_missing - 1) > ERROR
    else:
        assert binom.cdf(missed, count, 1 - target) <= ERROR


def test_the_promise_of_recall_holds_as_often_as_it_says():
    """Of thresholds from 60 draws each, at most ERROR have a recall below the target."""
    rng = np.random.default_rng(0)
    recalls = [1 - recall_threshold(rng.random(60), 0.9).threshold for _ in range(2000)]
    broken = np.mean(np.array(recalls) < 0.9)
    assert 0 < broken <= ERROR + 0.02
