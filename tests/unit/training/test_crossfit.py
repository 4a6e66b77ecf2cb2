"""Ridge heads, and cross-fitting: each listing is scored by a head that lacked it."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from schemas.errors import DataContractError
from schemas.taxonomy import Category, Taxonomy
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.training.candidates import fit_across
from seer_model.training.crossfit import cross_fit, folds_by_looks, folds_by_slice
from seer_model.training.labelled import LabelledPhotos
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


def photos_of(
    labels: Labels, features: Features, *, photos: int = 1, senders: list[str | None] | None = None
) -> LabelledPhotos:
    """Listings in the order of their ids, with so many equal photos each."""
    names = np.repeat([f"{i:04}" for i in range(len(labels))], photos).tolist()
    slices = None
    if senders is not None:
        each = [[("sender", sender)] if sender else [] for sender in senders for _ in range(photos)]
        slices = pa.array(each, pa.map_(pa.string(), pa.string()))
    return LabelledPhotos(
        names, np.repeat(labels, photos).astype(str).tolist(), features.repeat(photos, 0), slices
    )


def test_what_looks_alike_stays_together_and_each_fold_lacks_some_of_each_class() -> None:
    labels = np.arange(90) % 3
    shoot = np.arange(90) // 3 % 3
    rng = np.random.default_rng(0)
    middles = rng.normal(0, 1, (3, 3, 8))
    features = (middles[labels, shoot] + rng.normal(0, 0.05, (90, 8))).astype(np.float16)
    folds = folds_by_looks(photos_of(labels, features, photos=2), labels)
    for label in range(3):
        of_shoots = [set(folds[(labels == label) & (shoot == s)]) for s in range(3)]
        assert sorted(of_shoots, key=str) == [{0}, {1}, {2}]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.booleans())
def test_any_listings_are_dealt_to_three_folds(drawn: list[int], equal: bool) -> None:
    labels = np.unique(drawn, return_inverse=True)[1].astype(np.int64)
    features = np.random.default_rng(1).normal(0, 1, (len(labels), 4)).astype(np.float16)
    if equal:
        features[:] = 1
    folds = folds_by_looks(photos_of(labels, features), labels)
    assert folds.shape == labels.shape
    assert set(folds) <= {0, 1, 2}
    if not equal:
        for label, count in enumerate(np.bincount(labels)):
            assert len(set(folds[labels == label])) == min(count, 3)


def test_a_sender_is_in_one_fold_and_who_has_none_stands_alone() -> None:
    senders = ["a", "b", None, "c", "a", "d", "e", None, "f", "b"] * 4
    labels = np.arange(40) % 2
    photos = photos_of(labels, np.ones((40, 2), np.float16), photos=2, senders=senders)
    folds = folds_by_slice(photos, "sender")
    assert np.bincount(folds).tolist() == [8] * 5
    for sender in "abcdef":
        assert len({fold for fold, own in zip(folds, senders, strict=True) if own == sender}) == 1
    assert len({fold for fold, own in zip(folds, senders, strict=True) if own is None}) > 1


def test_two_senders_make_two_folds() -> None:
    photos = photos_of(np.arange(4) % 2, np.ones((4, 2), np.float16), senders=[*"aabb"])
    assert folds_by_slice(photos, "sender").tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])


@pytest.mark.parametrize(
    ("senders", "found"),
    [(["a", "a", None], "the slices sender"), (None, "no slices")],
)
def test_a_slice_without_two_values_is_refused(senders: list[str | None], found: str) -> None:
    photos = photos_of(np.arange(3) % 2, np.ones((3, 2), np.float16), senders=senders)
    with pytest.raises(DataContractError, match=f"--fold-by sender: .* they have {found}"):
        folds_by_slice(photos, "sender")


# Cross-fitting


def test_listings_chosen_to_learn_from_are_not_calibrated_on() -> None:
    features, labels = blobs([30, 30, 30])
    tree = ClassTree(Taxonomy([Category(name, (name,), None) for name in "012"]), [*"012"])
    chosen = np.arange(90) % 3 > 0
    photos = photos_of(labels, features)._replace(chosen=chosen)
    fit = fit_across(tree, photos, None)
    seen = [name for part in fit.held_out for name in part.photos.listing_ids]
    assert sorted(seen) == [f"{i:04}" for i in range(0, 90, 3)]
    # They are learned from all the same.
    everything = fit_across(tree, photos._replace(chosen=None), None)
    np.testing.assert_array_equal(fit.training.head.weight, everything.training.head.weight)
    with pytest.raises(DataContractError, match="label some listings at random, too"):
        fit_across(tree, photos._replace(chosen=np.ones(90, np.bool_)), None)


def test_a_fold_is_unknown_to_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("ridge", "crossfit"):
        monkeypatch.setattr(f"seer_model.training.{module}.STRENGTHS", (1.0,))
    features, labels = blobs([30, 30, 30])
    folds = np.arange(len(labels)) % 5
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
    folds = np.arange(len(labels)) % 5
    found = cross_fit(features, labels, folds, classes=3)
    biases = np.array([head.bias[2] for head in found.fold_heads])
    np.testing.assert_array_equal(np.isneginf(biases), np.arange(5) == folds[-1])
    assert np.isfinite(found.head.bias).all()
    logits = found.fold_heads[folds[-1]].logits(features.astype(np.float32))
    assert np.isneginf(logits[:, 2]).all()
    assert np.isfinite(logits[:, :2]).all()


def test_one_listing_a_class_gives_a_head() -> None:
    features, labels = blobs([1] * 8)
    found = cross_fit(features, labels, np.arange(len(labels)) % 5, classes=8)
    assert (found.head.logits(features.astype(np.float32)).argmax(axis=1) == labels).all()


def test_noise_asks_for_a_stronger_penalty() -> None:
    features, labels = blobs([30] * 3, width=60)
    noisy = features + np.random.default_rng(1).normal(0, 4, features.shape).astype(np.float16)
    folds = (np.tile(np.repeat(np.arange(5), 6), 3) + labels) % 5
    clear = cross_fit(features, labels, folds, classes=3)
    assert cross_fit(noisy, labels, folds, classes=3).choice.strength > clear.choice.strength
    assert clear.choice.loss < 0.5
