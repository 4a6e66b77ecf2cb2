"""Distances to the classes, and what is near enough to be assigned."""

import numpy as np
import pytest

from seer_model.categorizer.bundle import Bundle
from seer_model.categorizer.familiarity import level_distances
from seer_model.categorizer.thresholds import class_probabilities


def test_a_rows_distances_are_the_same_bits_in_any_batch(undecided_bundle: Bundle) -> None:
    familiarity = undecided_bundle.familiarity
    assert familiarity is not None
    features = np.random.default_rng(3).standard_normal((40, len(familiarity.mean)))
    rows = features.astype(np.float32)
    together = familiarity.distances(rows)
    assert together.dtype == np.float32
    alone = [familiarity.distances(row[None]) for row in rows]
    assert np.concatenate(alone).tobytes() == together.tobytes()
    shuffled = np.random.default_rng(4).permutation(len(rows))
    assert familiarity.distances(rows[shuffled]).tobytes() == together[shuffled].tobytes()


def test_the_nearest_class_of_a_category_counts(undecided_bundle: Bundle) -> None:
    """Of the category that the level would assign, whatever else is nearer."""
    tree = undecided_bundle.tree
    rng = np.random.default_rng(6)
    logits = rng.standard_normal((50, len(tree.classes))).astype(np.float32)
    distances = rng.uniform(1, 9, logits.shape).astype(np.float32)
    best = tree.best(class_probabilities(logits, 1.0))
    found = level_distances(distances, tree, best)
    assert found.shape == (50, len(tree.levels))
    for row in range(50):
        for depth, (level, of_level) in enumerate(zip(tree.levels, best, strict=True)):
            category = level.categories[of_level.position[row]]
            below = [
                distances[row, i]
                for i, name in enumerate(tree.classes)
                if category in (name, *tree.taxonomy.ancestors(name))
            ]
            assert found[row, depth] == pytest.approx(min(below))
    assert (found[:, 0] <= found[:, 1]).any()
