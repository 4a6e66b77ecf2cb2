"""Ridge heads, and cross-fitting: each listing is scored by a head that lacked it."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from seer_model.training.crossfit import cross_fit, deal_folds
from seer_model.training.ridge import STRENGTHS, ridge_heads

Features = npt.NDArray[np.float16]
Labels = npt.NDArray[np.int64]


def blobs(counts: list[int], seed: int = 0, width: int = 10) -> tuple[Features, Labels]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    features = rng.normal(0, 1, (len(labels), width)) + 5
    features[np.arange(len(labels)), labels] += 3
    return features.astype(np.float16), labels


# Ridge


def test_ridge_heads_are_those_of_scikit_learn() -> None:
    features, labels = blobs([40, 25, 7])
    weights = 1 / (3 * np.bincount(labels)[labels])
    raw = features.astype(np.float64)
    mean = weights @ raw
    deviation = np.sqrt(weights @ (raw - mean) ** 2)
    # The mean variance of standardised features is 1.
    expected = Ridge(alpha=0.3).fit((raw - mean) / deviation, np.eye(3)[labels], weights)
    found = ridge_heads(features, labels, classes=3, strengths=[10, 0.3])[1]
    np.testing.assert_allclose(
        found.logits(features.astype(np.float32)),
        expected.predict((raw - mean) / deviation),
        atol=1e-4,
    )


def test_a_constant_feature_and_one_photo_a_class_do_no_harm() -> None:
    features, labels = blobs([1, 1, 1])
    features[:, 4] = 0.1
    for head in ridge_heads(features, labels, classes=3, strengths=STRENGTHS):
        assert np.isfinite(head.weight).all()
        assert (head.logits(features.astype(np.float32)).argmax(axis=1) == labels).all()


def test_photos_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    photos = blobs([40, 25, 7])
    whole = ridge_heads(*photos, classes=3, strengths=STRENGTHS)
    monkeypatch.setattr("seer_model.training.ridge._ROWS_AT_ONCE", 11)
    for one, other in zip(ridge_heads(*photos, classes=3, strengths=STRENGTHS), whole, strict=True):
        np.testing.assert_allclose(one.weight, other.weight, rtol=1e-4, atol=1e-6)


# Folds


@given(st.lists(st.integers(0, 6), min_size=1, max_size=200))
def test_each_class_is_dealt_evenly_and_neighbours_stay_together(drawn: list[int]) -> None:
    labels = np.unique(drawn, return_inverse=True)[1].astype(np.int64)
    folds = deal_folds(labels)
    for label in range(labels.max() + 1):
        own = folds[labels == label]
        counts = np.bincount(own, minlength=5)
        assert counts.max() - counts.min() <= 1
        assert (np.diff(own) != 0).sum() <= 4


# Cross-fitting


def test_a_fold_is_unknown_to_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("ridge", "crossfit"):
        monkeypatch.setattr(f"seer_model.training.{module}.STRENGTHS", (1.0,))
    features, labels = blobs([30, 30, 30])
    folds = deal_folds(labels)
    changed = np.where(folds == 2, (labels + 1) % 3, labels)
    one = cross_fit(features, labels, folds, classes=3).fold_heads[2]
    other = cross_fit(features, changed, folds, classes=3).fold_heads[2]
    # Only the scale is chosen on all folds.
    np.testing.assert_allclose(
        one.weight / np.linalg.norm(one.weight),
        other.weight / np.linalg.norm(other.weight),
        atol=1e-6,
    )


def test_a_class_of_a_single_listing_is_unknown_to_its_fold() -> None:
    features, labels = blobs([10, 10, 1])
    folds = deal_folds(labels)
    found = cross_fit(features, labels, folds, classes=3)
    biases = np.array([head.bias[2] for head in found.fold_heads])
    np.testing.assert_array_equal(np.isneginf(biases), np.arange(5) == folds[-1])
    assert np.isfinite(found.head.bias).all()
    logits = found.fold_heads[folds[-1]].logits(features.astype(np.float32))
    assert np.isneginf(logits[:, 2]).all()
    assert np.isfinite(logits[:, :2]).all()


def test_one_listing_a_class_gives_a_head() -> None:
    features, labels = blobs([1] * 8)
    found = cross_fit(features, labels, deal_folds(labels), classes=8)
    assert (found.head.logits(features.astype(np.float32)).argmax(axis=1) == labels).all()


def test_noise_asks_for_a_stronger_penalty() -> None:
    features, labels = blobs([30] * 3, width=60)
    noisy = features + np.random.default_rng(1).normal(0, 4, features.shape).astype(np.float16)
    folds = deal_folds(labels)
    clear = cross_fit(features, labels, folds, classes=3)
    assert cross_fit(noisy, labels, folds, classes=3).choice.strength > clear.choice.strength
    assert clear.choice.loss < 0.5
