"""The class tree, against sums over descendants."""

from collections import defaultdict
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DataContractError
from schemas.taxonomy import Category, Taxonomy
from seer_model.categorizer.hierarchy import ClassTree

Probabilities = npt.NDArray[np.float64]


def grow(parents: list[int], names: list[str]) -> Taxonomy:
    """A tree whose node `i` hangs below node `parents[i]`, or at the top where that is -1."""
    paths: list[tuple[str, ...]] = []
    for i, parent in enumerate(parents):
        paths.append((*(paths[parent] if parent >= 0 else ()), f"name {i}"))
    return Taxonomy(
        Category(names[i], path, names[parent] if parent >= 0 else None)
        for i, (path, parent) in enumerate(zip(paths, parents, strict=True))
    )


@st.composite
def trees(draw: st.DrawFn) -> ClassTree:
    """Trees of up to 25 nodes with any two or more of them as classes, inner nodes too."""
    size = draw(st.integers(2, 25))
    parents = [draw(st.integers(-1, i - 1)) for i in range(size)]
    # Ids whose order is not that of the tree.
    names = draw(st.permutations([f"id{i}" for i in range(size)]))
    taxonomy = grow(parents, names)
    return ClassTree(taxonomy, draw(st.lists(st.sampled_from(names), min_size=2, unique=True)))


def random_probabilities(rows: int, classes: int) -> Probabilities:
    return np.random.default_rng(rows * classes).dirichlet(np.ones(classes), rows)


def sums_by_depth(tree: ClassTree, row: Probabilities) -> list[dict[str, float]]:
    """For every depth the probability of each category: of its class and of all classes below."""
    depths: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for label, value in zip(tree.classes, row, strict=True):
        node: str | None = label
        while node is not None:
            category = tree.taxonomy[node]
            depths[len(category.path)][node] += float(value)
            node = category.parent_id
    return [dict(depths[depth]) for depth in sorted(depths)]


@given(trees())
def test_exact_classes_have_no_class_below(tree: ClassTree) -> None:
    above = {
        c for c in tree.classes for other in tree.classes if c != other and tree.covers(c, other)
    }
    assert tree.exact == set(tree.classes) - above
    assert tree.exact


@given(trees())
def test_levels_are_sums_over_descendants(tree: ClassTree) -> None:
    classes = random_probabilities(4, len(tree.classes))
    expected = [sums_by_depth(tree, row) for row in classes]
    assert len(tree.levels) == len(expected[0])
    for depth, level in enumerate(tree.levels):
        found = level.probabilities(classes)
        assert found.shape == (4, len(level.categories))
        assert len(set(level.categories)) == len(level.categories)
        for row, sums in zip(found, expected, strict=True):
            assert dict(zip(level.categories, row, strict=True)) == pytest.approx(sums[depth])


@given(trees())
def test_best_is_the_likeliest_of_each_level(tree: ClassTree) -> None:
    classes = random_probabilities(3, len(tree.classes))
    for depth, (level, best) in enumerate(zip(tree.levels, tree.best(classes), strict=True)):
        for row in range(3):
            sums = sums_by_depth(tree, classes[row])[depth]
            chosen = level.categories[best.position[row]]
            assert best.score[row] == pytest.approx(max(sums.values()))
            assert sums[chosen] == pytest.approx(max(sums.values()))


@given(trees())
def test_sums_of_a_row_are_bit_identical_in_any_batch(tree: ClassTree) -> None:
    classes = random_probabilities(9, len(tree.classes))
    for level in tree.levels:
        together = level.probabilities(classes)
        for row in range(9):
            assert level.probabilities(classes[row : row + 1]).tobytes() == together[row].tobytes()


@given(trees(), st.randoms(use_true_random=False))
def test_order_and_repetition_of_labels_do_not_matter(tree: ClassTree, random: object) -> None:
    labels = [*tree.classes, *tree.classes[:2]]
    random.shuffle(labels)  # type: ignore[attr-defined]
    again = ClassTree(tree.taxonomy, labels)
    assert again.classes == tree.classes
    assert again.position == {label: i for i, label in enumerate(tree.classes)}


@given(trees(), st.data())
def test_covers_is_being_the_label_or_above_it(tree: ClassTree, data: st.DataObject) -> None:
    names = [category.category_id for category in tree.taxonomy]
    category, label = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
    path, below = tree.taxonomy[category].path, tree.taxonomy[label].path
    assert tree.covers(category, label) == (below[: len(path)] == path)


@given(trees())
def test_probability_of_a_whole_level_is_at_most_one(tree: ClassTree) -> None:
    classes = random_probabilities(2, len(tree.classes))
    totals = [level.probabilities(classes).sum(axis=1) for level in tree.levels]
    np.testing.assert_allclose(totals[0], 1)
    for above, below in pairwise(totals):
        assert (below <= above + 1e-12).all()


# By hand


def test_levels_of_a_known_tree(taxonomy: Taxonomy, classes: tuple[str, ...]) -> None:
    tree = ClassTree(taxonomy, classes)
    assert tree.classes == ("a-1-1", "a-1-2", "a-2-1", "f-1-1", "f-1-2", "t-1")
    assert [level.categories for level in tree.levels] == [
        ("a", "f", "t"),
        ("a-1", "a-2", "f-1", "t-1"),
        ("a-1-1", "a-1-2", "a-2-1", "f-1-1", "f-1-2"),
    ]
    row = np.array([[0.25, 0.125, 0.125, 0.25, 0.125, 0.125]])
    assert [level.probabilities(row)[0].tolist() for level in tree.levels] == [
        [0.5, 0.375, 0.125],
        [0.375, 0.125, 0.375, 0.125],
        [0.25, 0.125, 0.125, 0.25, 0.125],
    ]


def test_a_class_above_other_classes(taxonomy: Taxonomy) -> None:
    tree = ClassTree(taxonomy, ["a-1-1", "a-1", "a-1-2", "a"])
    assert tree.classes == ("a", "a-1", "a-1-1", "a-1-2")
    row = np.array([[0.125, 0.25, 0.5, 0.125]])
    assert [level.probabilities(row)[0].tolist() for level in tree.levels] == [
        [1.0],
        [0.875],
        [0.5, 0.125],
    ]


def test_a_tie_goes_to_the_first(taxonomy: Taxonomy) -> None:
    tree = ClassTree(taxonomy, ["t-1", "f-1-1"])
    (best, *_) = tree.best(np.array([[0.5, 0.5]]))
    assert tree.levels[0].categories[best.position[0]] == "f"


def test_covers_takes_labels_that_are_not_classes(taxonomy: Taxonomy) -> None:
    tree = ClassTree(taxonomy, ["a-1-1", "t-1"])
    assert tree.covers("a-1", "a-1-2")
    assert tree.covers("a", "a-2-1")
    assert not tree.covers("a-1-2", "a-1")
    assert not tree.covers("a", "nosuch")


# Refusals


def test_unknown_labels_are_named(taxonomy: Taxonomy) -> None:
    with pytest.raises(DataContractError, match=r"2 labels are not in the taxonomy, 'x-1'"):
        ClassTree(taxonomy, ["t-1", "x-2", "x-1", "a", "x-2"])


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "a"]])
def test_fewer_than_two_classes(taxonomy: Taxonomy, labels: list[str]) -> None:
    with pytest.raises(DataContractError, match=f"two classes, found {len(set(labels))}"):
        ClassTree(taxonomy, labels)
