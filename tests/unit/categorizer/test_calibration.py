"""Temperature and thresholds, against brute force."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from schemas.taxonomy import Category, Taxonomy
from seer_model.categorizer.calibration import (
    calibrate,
    class_probabilities,
    explain_no_threshold,
    lower_bound,
)
from seer_model.categorizer.hierarchy import ClassTree

Floats = npt.NDArray[np.float32]

NAMES = ["x", "x-1", "x-2", "x-1-1", "x-1-2", "y", "y-1", "z"]
TAXONOMY = Taxonomy(
    Category(name, tuple(name.split("-")), name.rpartition("-")[0] or None)
    for name in sorted(NAMES)
)
TREE = ClassTree(TAXONOMY, ["x-1-1", "x-1-2", "x-2", "y-1", "z"])
FLAT = ClassTree(Taxonomy([Category("p", ("p",), None), Category("q", ("q",), None)]), "pq")


def wilson(right: int, total: int) -> float:
    return float(lower_bound(np.array([right]), np.array([total]))[0])


# Wilson's bound


def test_wilson_by_hand() -> None:
    z2 = 1.2816**2
    assert wilson(10, 10) == pytest.approx(10 / (10 + z2))
    assert wilson(0, 10) == pytest.approx(0, abs=1e-12)
    # 8 of 10: (0.8 + 0.08212 - 1.2816 * sqrt(0.016 + 0.0041062)) / 1.164250
    assert wilson(8, 10) == pytest.approx(0.60158, abs=1e-5)
    assert wilson(1, 1) == pytest.approx(1 / (1 + z2))


@given(st.integers(1, 2000), st.data())
def test_wilson_agrees_with_scipy(total: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, total))
    # 90 % on one side is 80 % on both; z is 1.2816 here and 1.28155… there.
    interval = binomtest(right, total).proportion_ci(confidence_level=0.8, method="wilson")
    assert wilson(right, total) == pytest.approx(interval.low, abs=3e-5)


# Probabilities


def test_probabilities_are_a_softmax() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (20, 6)).astype(np.float32)
    found = class_probabilities(logits, 1.7)
    for row, values in zip(found, logits.tolist(), strict=True):
        powers = [math.exp(value / 1.7) for value in values]
        np.testing.assert_allclose(row, np.array(powers) / math.fsum(powers), rtol=1e-12)


def test_probabilities_of_extreme_logits() -> None:
    logits = np.array([[3e38, -3e38, 0], [1e30, 1e30, 1e30]], np.float32)
    np.testing.assert_allclose(class_probabilities(logits, 0.05), [[1, 0, 0], [1 / 3] * 3])


@pytest.mark.parametrize("classes", [2, 7, 33, 1000])
def test_a_row_has_the_same_probabilities_in_any_batch(classes: int) -> None:
    logits = np.random.default_rng(classes).normal(0, 5, (41, classes)).astype(np.float32)
    together = class_probabilities(logits, 1.1)
    for start, stop in ((0, 1), (7, 8), (40, 41), (1, 20), (13, 41)):
        part = class_probabilities(logits[start:stop], 1.1)
        assert part.tobytes() == together[start:stop].tobytes()


# Temperature


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_temperature_undoes_a_scaling(factor: float) -> None:
    rng = np.random.default_rng(1)
    honest = rng.normal(0, 2, (4000, 5))
    powers = np.exp(honest)
    draws = (rng.random((4000, 1)) > (powers / powers.sum(1, keepdims=True)).cumsum(1)).sum(1)
    labels = [TREE.classes[i] for i in np.minimum(draws, 4)]
    found = calibrate((honest * factor).astype(np.float32), labels, TREE, 0.9)
    assert found.temperature == pytest.approx(factor, rel=0.06)


def test_labels_without_a_class_do_not_change_the_temperature() -> None:
    logits, labels = labelled_logits(200, seed=3)
    alone = calibrate(logits, labels, TREE, 0.9).temperature
    strange = np.full((50, 5), 9, np.float32)
    with_strange = calibrate(np.vstack([logits, strange]), [*labels, *["y"] * 50], TREE, 0.9)
    assert with_strange.temperature == alone


def test_without_any_known_label_the_temperature_is_one() -> None:
    logits, _ = labelled_logits(10, seed=0)
    assert calibrate(logits, ["y"] * 10, TREE, 0.9).temperature == 1.0


# Thresholds


def labelled_logits(listings: int, seed: int, sharpness: float = 3.0) -> tuple[Floats, list[str]]:
    """Logits that are right more often the higher their score."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, listings)
    logits = rng.normal(0, 1.5, (listings, 5))
    logits[np.arange(listings), labels] += sharpness * rng.random(listings)
    return logits.astype(np.float32), [TREE.classes[i] for i in labels]


def expected_thresholds(
    logits: Floats, labels: list[str], tree: ClassTree, temperature: float, target: float
) -> list[float | None]:
    """From the deepest level up, the lowest safe score, by trying all."""
    best = tree.best(class_probabilities(logits, temperature))
    taken = [False] * len(labels)
    thresholds: list[float | None] = []
    for depth in reversed(range(len(tree.levels))):
        scores = best[depth].score.tolist()
        right = [
            tree.covers(tree.levels[depth].categories[p], label)
            for p, label in zip(best[depth].position, labels, strict=True)
        ]
        safe = []
        for score in {s for s, gone in zip(scores, taken, strict=True) if not gone}:
            above = [i for i, s in enumerate(scores) if s >= score and not taken[i]]
            if wilson(sum(right[i] for i in above), len(above)) >= target:
                safe.append(score)
        thresholds.append(min(safe, default=None))
        if safe:
            taken = [gone or s >= min(safe) for gone, s in zip(taken, scores, strict=True)]
    return thresholds[::-1]


@settings(max_examples=60)
@given(
    listings=st.integers(1, 60),
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.0, 3.0, 8.0]),
    target=st.sampled_from([0.3, 0.6, 0.8, 0.95]),
    ties=st.booleans(),
    strangers=st.integers(0, 5),
)
def test_every_threshold_is_the_lowest_safe_score(
    listings: int, seed: int, sharpness: float, target: float, ties: bool, strangers: int
) -> None:
    logits, labels = labelled_logits(listings, seed, sharpness)
    if ties:
        logits = np.rint(logits)
    labels[:strangers] = ["y", "x-1", "nosuch", "x", "y"][: len(labels[:strangers])]
    found = calibrate(logits, labels, TREE, target)
    assert found.target_precision == target
    assert list(found.thresholds) == expected_thresholds(
        logits, labels, TREE, found.temperature, target
    )


@pytest.mark.parametrize("target", [0.6, 0.8, 0.9])
def test_assigned_listings_reach_the_target_precision(target: float) -> None:
    logits, labels = labelled_logits(600, seed=7, sharpness=6)
    found = calibrate(logits, labels, TREE, target)
    assert all(threshold is not None for threshold in found.thresholds[1:])
    best = TREE.best(class_probabilities(logits, found.temperature))
    assigned = right = 0
    taken = np.zeros(len(labels), bool)
    for level, scored, threshold in reversed(
        list(zip(TREE.levels, best, found.thresholds, strict=True))
    ):
        if threshold is None:
            continue
        rows = np.flatnonzero((scored.score >= threshold) & ~taken)
        hits = sum(TREE.covers(level.categories[scored.position[i]], labels[i]) for i in rows)
        if len(rows):
            assert wilson(hits, len(rows)) >= target
        assigned, right = assigned + len(rows), right + hits
        taken[rows] = True
    assert assigned > 100
    assert right / assigned >= target


def test_nothing_is_safe_where_the_head_knows_nothing() -> None:
    logits, labels = labelled_logits(100, seed=1, sharpness=0)
    assert calibrate(logits, labels, TREE, 0.95).thresholds == (None, None, None)


def test_few_listings_are_not_enough() -> None:
    """10 right of 10 do not yet show a precision of 0.9; 16 of 16 do."""
    logits = np.tile(np.array([[4, 0]], np.float32), (16, 1))
    logits[:, 0] += np.arange(16) / 100
    labels = ["p"] * 16
    assert calibrate(logits[:10], labels[:10], FLAT, 0.9).thresholds == (None,)
    found = calibrate(logits, labels, FLAT, 0.9)
    assert found.thresholds[0] == class_probabilities(logits[:1], found.temperature)[0, 0]


def test_it_says_how_many_labels_are_missing() -> None:
    """15 right of 15 would show a precision of 0.9."""
    logits = np.tile(np.array([[4, 0]], np.float32), (10, 1))
    labels = ["p"] * 10
    found = calibrate(logits, labels, FLAT, 0.9)
    shortfall = explain_no_threshold(logits, labels, FLAT, found)
    assert shortfall is not None
    assert shortfall.labels_missing == 5
    assert "of the surest 10 of 10 listings to calibrate on, 10 are right" in shortfall.reason
    assert not calibrate(logits[:1].repeat(15, 0), ["p"] * 15, FLAT, 0.9).assigns_nothing


def test_it_says_when_no_number_of_labels_would_do() -> None:
    logits = np.tile(np.array([[4, 0]], np.float32), (10, 1))
    labels = ["p"] * 6 + ["q"] * 4
    found = calibrate(logits, labels, FLAT, 0.6)
    shortfall = explain_no_threshold(logits, labels, FLAT, found)
    assert shortfall is not None
    assert shortfall.labels_missing is None
    assert "of the surest 10 of 10 listings to calibrate on, 6 are right" in shortfall.reason


@settings(max_examples=60)
@given(
    listings=st.integers(1, 30),
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.0, 3.0, 8.0]),
    target=st.sampled_from([0.3, 0.8, 0.95]),
)
def test_with_the_missing_labels_something_is_assigned(
    listings: int, seed: int, sharpness: float, target: float
) -> None:
    logits, labels = labelled_logits(listings, seed, sharpness)
    found = calibrate(logits, labels, TREE, target)
    shortfall = explain_no_threshold(logits, labels, TREE, found)
    assert (shortfall is not None) == found.assigns_nothing
    if shortfall is not None and shortfall.labels_missing is not None:
        times = math.ceil((listings + shortfall.labels_missing) / listings)
        enough = calibrate(np.tile(logits, (times, 1)), labels * times, TREE, target)
        assert not enough.assigns_nothing


def test_a_tie_passes_as_a_whole_or_not_at_all() -> None:
    """16 right listings tie with 9 wrong ones: none is safe."""
    logits = np.tile(np.array([[2, 0]], np.float32), (25, 1))
    assert calibrate(logits, ["p"] * 16 + ["q"] * 9, FLAT, 0.9).thresholds == (None,)
    # Higher scores above the tie are safe.
    surer = np.tile(np.array([[3, 0]], np.float32), (16, 1))
    found = calibrate(np.vstack([logits, surer]), ["p"] * 16 + ["q"] * 9 + ["p"] * 16, FLAT, 0.9)
    assert found.thresholds[0] == class_probabilities(surer[:1], found.temperature)[0, 0]


def test_a_label_that_is_not_a_class_is_wrong_below_and_right_above() -> None:
    """`x-1` is not a class: a leaf below it is wrong; `x-1` and `x` are right."""
    logits = np.tile(np.array([[6, 0, 0, 0, 0]], np.float32), (40, 1))
    found = calibrate(logits, ["x-1"] * 40, TREE, 0.9)
    assert found.thresholds[2] is None
    assert found.thresholds[1] is not None
    # No listing is left for the level above.
    assert found.thresholds[0] is None


def test_a_category_above_all_classes_is_never_assigned() -> None:
    """Its score is 1 whatever the photo shows."""
    tree = ClassTree(TAXONOMY, ["x-1-1", "x-1-2", "x-2"])
    logits = np.tile(np.array([[2, 1, 0]], np.float32), (60, 1))
    labels = ["x-1-1", "x-1-2", "x-2"] * 20
    assert calibrate(logits, labels, tree, 0.9).thresholds == (None, None, None)
    assert calibrate(logits, ["x-1-1", "x-1-2"] * 30, tree, 0.9).thresholds[0::2] == (None, None)
    assert calibrate(logits, ["x-1-1", "x-1-2"] * 30, tree, 0.9).thresholds[1] is not None
