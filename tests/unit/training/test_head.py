"""The linear head: it learns, fairly, reproducibly, and scores a row the same in any company."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seer_model.linear_head import LinearHead
from seer_model.training.head import HeadTraining, train_head
from tests.support.watching_loops import Watched

Features = npt.NDArray[np.float16]
Labels = npt.NDArray[np.int64]


def blobs(
    counts: list[int], seed: int, *, width: int = 12, noise: float = 1.0, gap: float = 3.0
) -> tuple[Features, Labels]:
    """Photos of each class around a corner of their own."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    features = noise * rng.standard_normal((len(labels), width))
    features[np.arange(len(labels)), labels] += gap
    order = rng.permutation(len(labels))
    return features[order].astype(np.float16), labels[order]


def trained(counts: list[int], **options: Any) -> HeadTraining:
    blob = {name: options.pop(name) for name in ("width", "noise", "gap") if name in options}
    train, val = blobs(counts, 1, **blob), blobs(counts, 2, **blob)
    return train_head(*train, *val, classes=len(counts), **options)


def recalls(head: LinearHead, features: Features, labels: Labels) -> list[float]:
    best = head.logits(features.astype(np.float32)).argmax(axis=1)
    return [float((best[labels == c] == c).mean()) for c in range(len(head.bias))]


# Learning


def test_learns_separable_classes() -> None:
    training = trained([60] * 4, noise=0.3)
    assert min(recalls(training.head, *blobs([50] * 4, 3, noise=0.3))) == 1
    assert training.train_loss[-1] < training.train_loss[0]
    assert training.head.weight.shape == (4, 12)
    assert training.head.bias.shape == (4,)
    assert training.head.weight.dtype == training.head.bias.dtype == np.float32


def test_learns_features_of_any_scale_and_offset() -> None:
    """What the trunk gives is not centred; the head takes it raw."""
    scale = np.geomspace(1e-2, 1e2, 12)
    offset = np.linspace(-50, 50, 12)

    def moved(seed: int) -> tuple[Features, Labels]:
        features, labels = blobs([60] * 3, seed, noise=0.3)
        return ((features + offset / scale) * scale).astype(np.float16), labels

    head = train_head(*moved(1), *moved(2), classes=3).head
    assert min(recalls(head, *moved(3))) > 0.95


def test_a_rare_class_counts_as_much_as_a_common_one() -> None:
    counts = [570, 30]
    overlapping = {"width": 2, "gap": 1.5}
    training = trained(counts, **overlapping)
    common, rare = recalls(training.head, *blobs([1000, 1000], 3, **overlapping))
    # The fair boundary lies half-way and is right for 86 % of either class.
    assert common == pytest.approx(0.86, abs=0.06)
    assert rare == pytest.approx(0.86, abs=0.06)


def test_a_constant_feature_does_no_harm() -> None:
    train, val, test = (blobs([40] * 3, seed, noise=0.3) for seed in (1, 2, 3))
    for features, _ in (train, val, test):
        features[:, 5] = 0.1
        features[:, 6] = 0
    head = train_head(*train, *val, classes=3).head
    assert np.isfinite(head.weight).all()
    assert min(recalls(head, *test)) == 1


def test_one_photo_a_class_is_enough_to_train() -> None:
    training = trained([1, 1, 1], max_epochs=5)
    assert np.isfinite(training.head.weight).all()
    assert len(training.train_loss) == 5


# The same again


def test_the_same_seed_gives_the_same_head() -> None:
    one, same, other = (trained([300] * 3, seed=seed, max_epochs=8) for seed in (4, 4, 5))
    assert one.head.weight.tobytes() == same.head.weight.tobytes()
    assert one.head.bias.tobytes() == same.head.bias.tobytes()
    assert one.val_loss == same.val_loss
    assert one.head.weight.tobytes() != other.head.weight.tobytes()


# Early stopping


def test_the_best_epoch_is_kept() -> None:
    """More features than photos: after a while the head gets worse on `val`."""
    options = {"noise": 2.0, "width": 200, "patience": 15, "max_epochs": 300}
    training = trained([15] * 3, **options)
    best = training.best_epoch
    assert 0 < best < len(training.val_loss) - 1
    assert training.val_loss[best] == min(training.val_loss)
    assert len(training.val_loss) == len(training.train_loss) == best + 15 + 1
    assert training.val_loss[-1] > training.val_loss[best]
    # A training that ends there gives the same head.
    until_best = trained([15] * 3, **options | {"max_epochs": best + 1})
    assert until_best.head.weight.tobytes() == training.head.weight.tobytes()
    assert until_best.head.bias.tobytes() == training.head.bias.tobytes()


def test_max_epochs_is_a_limit() -> None:
    watched = Watched()
    training = trained([20] * 3, max_epochs=3, patience=100, watch=watched)
    assert len(training.val_loss) == 3
    label = "training the head on 60 photos of 3 classes"
    assert watched.loops == [(label, "epochs at most", 3, 3)]
    assert training.best_epoch == 2


# Logits


def random_head(classes: int, width: int) -> LinearHead:
    rng = np.random.default_rng(classes * width)
    return LinearHead(
        rng.standard_normal((classes, width)).astype(np.float32),
        rng.standard_normal(classes).astype(np.float32),
    )


def random_rows(rows: int, width: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(rows).standard_normal((rows, width)).astype(np.float32)


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 257, 700])
def test_logits_are_products_and_bias(rows: int) -> None:
    head, features = random_head(5, 441), random_rows(rows, 441)
    logits = head.logits(features)
    assert logits.shape == (rows, 5)
    assert logits.dtype == np.float32
    exact = features.astype(np.float64) @ head.weight.T.astype(np.float64) + head.bias
    np.testing.assert_allclose(logits, exact, atol=1e-4)


@pytest.mark.parametrize(("classes", "width"), [(2, 7), (6, 368), (33, 441), (700, 784)])
@settings(max_examples=15)
@given(data=st.data())
def test_a_row_scores_the_same_in_any_batch(classes: int, width: int, data: st.DataObject) -> None:
    head, features = random_head(classes, width), random_rows(300, width)
    together = head.logits(features)
    chosen = data.draw(st.lists(st.integers(0, 299), min_size=1, max_size=600))
    assert head.logits(features[chosen]).tobytes() == together[chosen].tobytes()
    alone = chosen[:1]
    assert head.logits(features[alone]).tobytes() == together[alone].tobytes()


def test_a_row_scores_the_same_from_any_memory_layout() -> None:
    head, features = random_head(6, 368), random_rows(40, 368)
    expected = head.logits(features).tobytes()
    assert head.logits(np.asfortranarray(features)).tobytes() == expected
    assert head.logits(np.repeat(features, 2, axis=0)[::2]).tobytes() == expected


# Groups


def test_balancing_helps_a_rare_group_whose_classes_look_otherwise() -> None:
    """In a group of a tenth, two classes have swapped their places along one feature."""

    def draw(seed: int, rare: int) -> tuple[Features, Labels, Labels]:
        rng = np.random.default_rng(seed)
        groups = np.repeat([0, 1], [1500, rare])
        labels = rng.integers(0, 2, len(groups))
        features = rng.standard_normal((len(groups), 3))
        side = 2 * labels - 1
        features[:, 0] += np.where(groups == 0, 2, -1) * side
        features[:, 1] += 1.2 * side
        return features.astype(np.float16), labels, groups

    features, labels, groups = draw(1, 150)
    val_features, val_labels, _ = draw(2, 150)
    test_features, test_labels, test_groups = draw(3, 1500)
    shares = {}
    for name, balanced in (("plain", None), ("balanced", groups)):
        found = train_head(features, labels, val_features, val_labels, classes=2, groups=balanced)
        best = found.head.logits(test_features.astype(np.float32)).argmax(axis=1)
        shares[name] = [(best == test_labels)[test_groups == g].mean() for g in (0, 1)]
    assert shares["balanced"][1] > shares["plain"][1] + 0.05
    assert shares["balanced"][0] > shares["plain"][0] - 0.1


def test_one_group_of_all_is_no_group() -> None:
    train, val = blobs([40, 40], 1), blobs([40, 40], 2)
    plain, one = (
        train_head(*train, *val, classes=2, groups=groups, max_epochs=3)
        for groups in (None, np.zeros(80, np.int64))
    )
    assert np.array_equal(plain.head.weight, one.head.weight)
