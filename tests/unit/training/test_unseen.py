"""Goods that a head was not taught: distances, classes held out in turn, and the mixture."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.taxonomy import Category, Taxonomy
from seer_model.backbones.backbone import Backbone
from seer_model.categorizer.calibration import CalibrationSample, calibrate
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.linear_head import LinearHead
from seer_model.training.fit import fit_bundle
from seer_model.training.labelled import LabelledPhotos
from seer_model.training.unseen import (
    FAMILIAR_SHARE,
    add_unseen,
    choose_limits,
    fit_familiarity,
    hold_out_classes,
    score_held_out,
)

LabelledPhotosBuilder = Callable[..., LabelledPhotos]


# Distances


def test_distances_are_mahalanobis_distances() -> None:
    """Up to the one variance for the smallest directions, and to the shrinkage."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 4000)
    mix = np.eye(6) + rng.standard_normal((6, 6)) / 8
    features = rng.standard_normal((4000, 6)) @ mix + 3 * np.eye(3, 6)[labels] + 5
    features = features.astype(np.float16)
    found = fit_familiarity(features, labels, 3).distances(features[:50].astype(np.float32))
    raw = features.astype(np.float64)
    means = np.stack([raw[labels == k].mean(axis=0) for k in range(3)])
    inverse = np.linalg.inv(np.cov((raw - means[labels]).T, bias=True))
    from_means = raw[:50, None] - means
    expected = np.einsum("rkw,wv,rkv->rk", from_means, inverse, from_means)
    np.testing.assert_allclose(found, expected, rtol=0.1, atol=0.2)


def test_distances_are_euclidean_once_whitened() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 600)
    noise = rng.standard_normal((600, 90)) @ rng.standard_normal((90, 90))
    features = (noise + 9 * np.eye(3, 90)[labels]).astype(np.float16)
    familiarity = fit_familiarity(features, labels, 3)
    rows = features.astype(np.float32)
    means = np.stack([rows[labels == k].mean(axis=0) for k in range(3)])
    apart = familiarity.whiten(rows)[:, None] - familiarity.whiten(means)
    expected = familiarity.distances(rows)
    np.testing.assert_allclose((apart**2).sum(axis=2), expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("photos", [1, 2])
def test_one_or_two_photos_a_class_do(photos: int) -> None:
    labels = np.arange(5).repeat(photos)
    noise = np.random.default_rng(0).standard_normal((5 * photos, 9))
    features = (noise + 9 * np.eye(5, 9)[labels]).astype(np.float16)
    features[:, 8] = 1  # A feature that never varies.
    found = fit_familiarity(features, labels, 5).distances(features.astype(np.float32))
    assert np.isfinite(found).all()
    assert (found.argmin(axis=1) == labels).all()


# Classes held out


def tree_of(paths: list[tuple[str, ...]]) -> ClassTree:
    nodes = sorted({path[:depth] for path in paths for depth in range(1, len(path) + 1)})
    categories = [Category("/".join(n), n, "/".join(n[:-1]) or None) for n in nodes]
    return ClassTree(Taxonomy(categories, "1"), ["/".join(path) for path in paths])


@given(
    paths=st.lists(
        st.lists(st.sampled_from("abcd"), min_size=1, max_size=3).map(tuple),
        min_size=3,
        max_size=30,
        unique=True,
    ),
    seed=st.integers(0, 99),
)
def test_every_class_is_held_out_at_most_once(paths: list[tuple[str, ...]], seed: int) -> None:
    tree = tree_of(paths)
    folds = hold_out_classes(tree, seed)
    held_out = [c for fold in folds for c in fold]
    assert len(held_out) == len(set(held_out))
    assert all(len(tree.classes) - len(fold) >= 2 for fold in folds)
    if len(paths) >= 10:
        assert sorted(held_out) == sorted(tree.classes)
    assert hold_out_classes(tree, seed) == folds


def test_classes_and_whole_branches_are_held_out() -> None:
    tree = tree_of([(top, leaf) for top in "abcdefgh" for leaf in "xyz"])
    whole = [
        len([c for c in fold if c.startswith(top)]) == 3
        for fold in hold_out_classes(tree, 0)
        for top in "abcdefgh"
        if any(c.startswith(top) for c in fold)
    ]
    assert any(whole)
    assert not all(whole)


def test_two_classes_are_too_few() -> None:
    assert hold_out_classes(tree_of([("a",), ("b",)]), 0) == []


def nearest_mean(
    features: npt.NDArray[np.float16], labels: npt.NDArray[np.int64], classes: int
) -> LinearHead:
    raw = features.astype(np.float32)
    means = np.stack([raw[labels == k].mean(axis=0) for k in range(classes)])
    return LinearHead(means, -(means**2).sum(axis=1) / 2)


def test_a_listing_is_scored_without_its_class(
    labelled_photos: LabelledPhotosBuilder, classes: tuple[str, ...], taxonomy: Taxonomy
) -> None:
    tree = ClassTree(taxonomy, classes)
    photos = labelled_photos(60, seed=1, photos=1)
    labels = np.array([tree.position[label] for label in photos.labels])
    features = photos.vectors.astype(np.float32)

    def retrain(kept: npt.NDArray[np.bool_]) -> LinearHead:
        head = nearest_mean(photos.vectors, labels, len(classes))
        return LinearHead(head.weight, np.where(kept, head.bias, -np.inf).astype(np.float32))

    found = score_held_out(tree, photos.vectors, labels, features, labels, retrain, seed=0)
    assert found is not None
    assert sorted(found.labels) == sorted(labels)
    own = np.arange(len(found.labels)), found.labels
    assert np.isneginf(found.logits[own]).all()
    assert np.isposinf(found.distances[own]).all()
    assert np.isfinite(found.logits).sum(axis=1).min() >= 2


# The mixture


def test_what_is_new_raises_the_threshold_of_the_leaves(
    labelled_photos: LabelledPhotosBuilder, backbone: Backbone, taxonomy: Taxonomy
) -> None:
    """A known apple and a new one look alike to this head, so that thresholds must tell."""

    def fit(share: float) -> float:
        fitted = fit_bundle(
            backbone,
            taxonomy,
            labelled_photos(90, seed=1, noise=1.5),
            labelled_photos(240, seed=2, noise=1.5),
            target_precision=0.8,
            unseen_share=share,
            seed=0,
            origin={},
        )
        threshold = fitted.bundle.calibration.thresholds[-1]
        assert threshold is not None
        return threshold

    # A level above has a threshold only where the leaves leave something to it.
    assert fit(0.0) < fit(0.2) < fit(0.8)


def test_the_limits_let_most_known_listings_through(taxonomy: Taxonomy) -> None:
    tree = ClassTree(taxonomy, ["a-1-1", "f-1-1", "t-1"])
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    features = (rng.standard_normal((400, 12)) + 4 * np.eye(3, 12)[labels]).astype(np.float16)
    fused = features[200:].astype(np.float32)
    familiarity = fit_familiarity(features[:200], labels[:200], 3)
    head = nearest_mean(features[:200], labels[:200], 3)
    sample = CalibrationSample(head.logits(fused), [tree.classes[i] for i in labels[200:]])
    limits = choose_limits(familiarity.distances(fused), sample, tree)
    allowed = add_unseen(sample, familiarity.distances(fused), limits, tree).allowed
    assert allowed is not None
    assert allowed.mean(axis=0) == pytest.approx([FAMILIAR_SHARE] * 3, abs=0.01)
    far = add_unseen(sample, familiarity.distances(fused + 9), limits, tree).allowed
    assert far is not None
    assert not far.any()
    assert calibrate(sample, tree, 0.8).temperature > 0
