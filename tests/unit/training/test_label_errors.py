"""Which labels are probably wrong: found in clusters where some were mixed up."""

import numpy as np
import numpy.typing as npt
import pytest

from seer_model.training.label_errors import confidently_wrong, out_of_fold

CLASSES = 5
Mixed = tuple[npt.NDArray[np.float16], npt.NDArray[np.int64], npt.NDArray[np.bool_]]


def mixed_up(seed: int, share: float = 0.05) -> Mixed:
    """Features of 400 listings around a point a class, their labels, and which are wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, 400)
    features = (rng.normal(size=(CLASSES, 12))[truth] * 2 + rng.normal(size=(400, 12))).astype("f2")
    wrong = np.zeros(400, np.bool_)
    wrong[rng.choice(400, round(share * 400), replace=False)] = True
    labels = np.where(wrong, (truth + rng.integers(1, CLASSES, 400)) % CLASSES, truth)
    return features, labels, wrong


@pytest.mark.parametrize("seed", range(3))
def test_wrong_labels_come_first(seed: int) -> None:
    features, labels, wrong = mixed_up(seed)
    found = out_of_fold(features, labels, classes=CLASSES)
    looked_at = np.argsort(found.confidence)[: 2 * wrong.sum()]
    assert wrong[looked_at].sum() >= 0.95 * wrong.sum()
    suspects = confidently_wrong(found, labels)
    assert wrong[suspects].mean() > 0.8
    assert 0.8 * wrong.sum() <= suspects.sum() <= 1.3 * wrong.sum()


def test_right_labels_are_left_alone() -> None:
    features, labels, _ = mixed_up(0, share=0.0)
    found = out_of_fold(features, labels, classes=CLASSES)
    assert confidently_wrong(found, labels).mean() < 0.02


def test_best_classes_are_those_of_the_heads() -> None:
    features, labels, _ = mixed_up(1)
    found = out_of_fold(features, labels, classes=CLASSES)
    assert found.classes.shape == found.probabilities.shape == (400, CLASSES)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    assert (np.diff(found.probabilities) <= 0).all()
    own = (found.classes == labels[:, None]).argmax(axis=1)
    np.testing.assert_array_equal(found.probabilities[np.arange(400), own], found.confidence)


def test_a_label_alone_in_its_class_cannot_be_judged() -> None:
    features, labels, _ = mixed_up(2)
    labels[7] = CLASSES
    found = out_of_fold(features, labels, classes=CLASSES + 1)
    assert np.flatnonzero(np.isnan(found.confidence)).tolist() == [7]
    assert not confidently_wrong(found, labels)[7]


def test_the_same_again() -> None:
    features, labels, _ = mixed_up(3)
    first, again, other = (
        out_of_fold(features, labels, classes=CLASSES, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.confidence, again.confidence)
    assert (first.confidence != other.confidence).any()
