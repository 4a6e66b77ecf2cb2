"""Temperature and thresholds, against brute force."""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from schemas.taxonomy import Category, Taxonomy
from seer_model.categorizer.calibration import (
    ERROR,
    CalibrationSample,
    calibrate,
    explain_no_threshold,
)
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.thresholds import Calibration, class_probabilities

Floats = npt.NDArray[np.float32]

NAMES = ["x", "x-1", "x-2", "x-1-1", "x-1-2", "y", "y-1", "z"]
TAXONOMY = Taxonomy(
    Category(name, tuple(name.split("-")), name.rpartition("-")[0] or None)
    for name in sorted(NAMES)
)
TREE = ClassTree(TAXONOMY, ["x-1-1", "x-1-2", "x-2", "y-1", "z"])
FLAT = ClassTree(Taxonomy([Category("p", ("p",), None), Category("q", ("q",), None)]), "pq")


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
    found = calibrate(CalibrationSample((honest * factor).astype(np.float32), labels), TREE, 0.9)
    assert found.temperature == pytest.approx(factor, rel=0.06)


def test_labels_without_a_class_do_not_change_the_temperature() -> None:
    logits, labels = labelled_logits(200, seed=3)
    alone = calibrate(CalibrationSample(logits, labels), TREE, 0.9).temperature
    strange = np.full((50, 5), 9, np.float32)
    with_strange = calibrate(
        CalibrationSample(np.vstack([logits, strange]), [*labels, *["y"] * 50]), TREE, 0.9
    )
    assert with_strange.temperature == alone


def test_without_any_known_label_the_temperature_is_one() -> None:
    logits, _ = labelled_logits(10, seed=0)
    assert calibrate(CalibrationSample(logits, ["y"] * 10), TREE, 0.9).temperature == 1.0


# Thresholds


def labelled_logits(listings: int, seed: int, sharpness: float = 3.0) -> tuple[Floats, list[str]]:
    """Logits that are right more often the higher their score."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, listings)
    logits = rng.normal(0, 1.5, (listings, 5))
    logits[np.arange(listings), labels] += sharpness * rng.random(listings)
    return logits.astype(np.float32), [TREE.classes[i] for i in labels]


def admitted(
    sample: CalibrationSample, tree: ClassTree, calibration: Calibration
) -> list[tuple[int, int]]:
    """Of each level with a threshold: listings assigned and right, by scoring's rule."""
    found, taken = [], set[int]()
    best = tree.best(class_probabilities(sample.logits, calibration.temperature))
    for depth in reversed(range(len(tree.levels))):
        threshold = calibration.thresholds[depth]
        if threshold is None:
            continue
        scores, positions = best[depth].score, best[depth].position
        rows = [
            i
            for i, score in enumerate(scores)
            if score >= threshold
            and i not in taken
            and (sample.allowed is None or sample.allowed[i, depth])
        ]
        names = tree.levels[depth].categories
        hits = sum(tree.covers(names[positions[i]], sample.labels[i]) for i in rows)
        found.append((len(rows), hits))
        taken.update(rows)
    return found


@settings(max_examples=40)
@given(
    listings=st.integers(1, 150),
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.0, 3.0, 8.0]),
    target=st.sampled_from([0.3, 0.6, 0.8, 0.95]),
    strangers=st.integers(0, 5),
    restrict=st.booleans(),
)
def test_what_is_assigned_at_each_level_passes_an_exact_test_at_its_share_of_the_error(
    listings: int, seed: int, sharpness: float, target: float, strangers: int, restrict: bool
) -> None:
    logits, labels = labelled_logits(listings, seed, sharpness)
    labels[:strangers] = ["y", "x-1", "nosuch", "x", "y"][: len(labels[:strangers])]
    allowed = np.random.default_rng(seed).random((listings, 3)) < 0.7 if restrict else None
    sample = CalibrationSample(logits, labels, allowed=allowed)
    found = calibrate(sample, TREE, target)
    assert found.target_precision == target
    p_values = [
        binomtest(right, rows, target, alternative="greater").pvalue
        for rows, right in admitted(sample, TREE, found)
    ]
    assert sum(p_values) <= ERROR


def test_few_runs_break_the_promise_at_any_level() -> None:
    """True probabilities, 150 listings of each run, a precision that is measured on 20,000."""
    rng = np.random.default_rng(5)

    def draw(listings: int) -> CalibrationSample:
        probabilities = rng.dirichlet(np.full(5, 0.15), listings)
        labels = (rng.random((listings, 1)) > probabilities.cumsum(1)).sum(1).clip(max=4)
        logits = np.log(probabilities + 1e-9).astype(np.float32)
        return CalibrationSample(logits, [TREE.classes[i] for i in labels])

    many = draw(20_000)
    broken = found = 0
    for _ in range(60):
        calibration = replace(calibrate(draw(150), TREE, 0.9), temperature=1.0)
        levels = admitted(many, TREE, calibration)
        found += bool(levels)
        broken += any(right / rows < 0.9 for rows, right in levels)
    assert found > 30
    assert broken <= 60 * ERROR + 3 * math.sqrt(60 * ERROR * (1 - ERROR))


def test_nothing_is_safe_where_the_head_knows_nothing() -> None:
    logits, labels = labelled_logits(100, seed=1, sharpness=0)
    assert calibrate(CalibrationSample(logits, labels), TREE, 0.95).thresholds == (None, None, None)


def test_few_listings_are_not_enough() -> None:
    """21 right of 21 do not yet show a precision of 0.9; 22 of 22 do."""
    logits = np.tile(np.array([[4, 0]], np.float32), (22, 1))
    logits[:, 0] += np.arange(22) / 100
    labels = ["p"] * 22
    assert calibrate(CalibrationSample(logits[:21], labels[:21]), FLAT, 0.9).thresholds == (None,)
    found = calibrate(CalibrationSample(logits, labels), FLAT, 0.9)
    assert found.thresholds[0] == class_probabilities(logits[:1], found.temperature)[0, 0]


def test_it_says_how_many_labels_are_missing() -> None:
    """22 right of 22 would show a precision of 0.9."""
    sample = CalibrationSample(np.tile(np.array([[4, 0]], np.float32), (10, 1)), ["p"] * 10)
    shortfall = explain_no_threshold(sample, FLAT, calibrate(sample, FLAT, 0.9))
    assert shortfall is not None
    assert shortfall.labels_missing == 12
    assert "of the surest 10 of 10 listings to calibrate on, 10 are right" in shortfall.reason
    enough = CalibrationSample(sample.logits[:1].repeat(22, 0), ["p"] * 22)
    found = calibrate(enough, FLAT, 0.9)
    assert not found.assigns_nothing
    assert explain_no_threshold(enough, FLAT, found) is None


def test_it_says_when_no_number_of_labels_would_do() -> None:
    logits = np.tile(np.array([[4, 0]], np.float32), (10, 1))
    labels = ["p"] * 6 + ["q"] * 4
    found = calibrate(CalibrationSample(logits, labels), FLAT, 0.6)
    shortfall = explain_no_threshold(CalibrationSample(logits, labels), FLAT, found)
    assert shortfall is not None
    assert shortfall.labels_missing is None
    assert "of the surest 10 of 10 listings to calibrate on, 6 are right" in shortfall.reason


def test_a_class_that_a_head_did_not_know() -> None:
    """Its logit is -inf: wrong at the leaf, right above, and of no account for the temperature."""
    logits, labels = labelled_logits(300, seed=3, sharpness=8)
    alone = calibrate(CalibrationSample(logits, labels), TREE, 0.8)
    unknown = np.tile(np.array([[-np.inf, 9, 0, 0, 0]], np.float32), (60, 1))
    sample = CalibrationSample(np.vstack([logits, unknown]), [*labels, *["x-1-1"] * 60])
    found = calibrate(sample, TREE, 0.8)
    assert found.temperature == alone.temperature
    assert alone.thresholds[2] is not None
    assert found.thresholds[2] is None  # The surest fifth are wrong.
    light = replace(sample, weights=np.append(np.ones(300), np.full(60, 0.01)))
    assert calibrate(light, TREE, 0.7).thresholds[2] is not None
    barred = replace(sample, allowed=np.repeat([[True] * 3, [False] * 3], [300, 60], axis=0))
    assert calibrate(barred, TREE, 0.8) == alone


def test_a_label_that_is_not_a_class_is_wrong_below_and_right_above() -> None:
    """`x-1` is not a class: a leaf below it is wrong; `x-1` and `x` are right."""
    logits = np.tile(np.array([[6, 0, 0, 0, 0]], np.float32), (40, 1))
    found = calibrate(CalibrationSample(logits, ["x-1"] * 40), TREE, 0.9)
    assert found.thresholds[2] is None
    assert found.thresholds[1] is not None
    # No listing is left for the level above.
    assert found.thresholds[0] is None


def test_a_category_above_all_classes_is_never_assigned() -> None:
    """Its score is 1 whatever the photo shows."""
    tree = ClassTree(TAXONOMY, ["x-1-1", "x-1-2", "x-2"])
    logits = np.tile(np.array([[2, 1, 0]], np.float32), (60, 1))
    labels = ["x-1-1", "x-1-2", "x-2"] * 20
    assert calibrate(CalibrationSample(logits, labels), tree, 0.9).thresholds == (None, None, None)
    assert calibrate(CalibrationSample(logits, ["x-1-1", "x-1-2"] * 30), tree, 0.9).thresholds[
        0::2
    ] == (None, None)
    assert (
        calibrate(CalibrationSample(logits, ["x-1-1", "x-1-2"] * 30), tree, 0.9).thresholds[1]
        is not None
    )
