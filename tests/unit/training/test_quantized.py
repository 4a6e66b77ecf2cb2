"""What a quantized backbone loses, compared photo by photo."""

import numpy as np
import pytest

from seer_model.training.quantized import compare_features

CLASSES, WIDTH = 5, 24


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Photos of five classes that overlap a little, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(600) % CLASSES
    centres = rng.normal(size=(CLASSES, WIDTH))
    vectors = centres[labels] + rng.normal(size=(600, WIDTH))
    return vectors.astype(np.float16), labels


def compare(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    learn, ask = slice(0, 300), slice(300, 600)
    return compare_features(
        (before[learn], before[ask]), (after[learn], after[ask]), labels[learn], labels[ask]
    )


def test_the_same_features_lose_nothing(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, labels = drawn
    photos, before, after, loss, same = compare(vectors, vectors, labels)
    assert (photos, loss, same) == (300, 0, 1)
    assert before == after > 0.9


def test_rounding_is_no_loss_and_destruction_is(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, labels = drawn
    rounded = (np.round(vectors * 16) / 16).astype(np.float16)
    assert compare(vectors, rounded, labels)[3] <= 0.003
    noise = np.random.default_rng(1).normal(scale=2, size=vectors.shape)
    _, before, after, loss, same = compare(vectors, (vectors + noise).astype(np.float16), labels)
    assert 0.05 < loss <= before - after
    assert same < 0.9


def test_a_loss_is_believed_only_where_many_photos_show_it(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    """Of ten photos, one that is lost may be chance."""
    vectors, labels = drawn
    changed = vectors.copy()
    changed[300] = -changed[300]
    learn, ask = slice(0, 300), slice(300, 310)
    found = compare_features(
        (vectors[learn], vectors[ask]), (changed[learn], changed[ask]), labels[learn], labels[ask]
    )
    assert found.top1 < found.top1_before
    assert found.loss_at_least <= 0
