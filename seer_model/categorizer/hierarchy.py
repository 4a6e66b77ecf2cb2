"""Scores by taxonomy level: a category's probability is the sum over the classes below it."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from schemas.errors import DataContractError
from schemas.taxonomy import Taxonomy

__all__ = ["ClassTree", "Level", "LevelBest"]

Probabilities = npt.NDArray[np.float64]
Distances = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Level:
    """The categories at one depth with at least one class.

    `starts` cuts `ClassTree.classes` into segments: one for each category, and one for each class
    that ends above this depth.

    Attributes:
        categories: Their ids.
        starts: int64, where each segment begins.
        keep: int64, which segments are categories.
    """

    categories: tuple[str, ...]
    starts: npt.NDArray[np.int64]
    keep: npt.NDArray[np.int64]

    def probabilities(self, classes: Probabilities) -> Probabilities:
        """(rows, classes) to (rows, categories); bit-identical for a row in any batch."""
        sums: Probabilities = np.add.reduceat(classes, self.starts, axis=1)
        return sums[:, self.keep]

    def nearest(self, classes: Distances) -> Distances:
        """(rows, classes) to (rows, categories): the least distance to a class of each category."""
        least: Distances = np.minimum.reduceat(classes, self.starts, axis=1)
        return least[:, self.keep]


@dataclass(frozen=True)
class LevelBest:
    """The best category of a level for each row.

    Attributes:
        position: int64, (rows,), in `Level.categories`.
        score: float64, (rows,).
    """

    position: npt.NDArray[np.int64]
    score: Probabilities


class ClassTree:
    """A head's classes in depth-first order, and the levels of categories above them.

    A class may be any category of the taxonomy, leaf or not; most categories may have no class.

    Args:
        taxonomy: The tree.
        labels: Ids of the classes, in any order; repetitions do not count.

    Raises:
        DataContractError: A label is not in the taxonomy, or fewer than two are distinct.
    """

    def __init__(self, taxonomy: Taxonomy, labels: Collection[str]) -> None:
        distinct = set(labels)
        unknown = sorted(distinct - {c.category_id for c in taxonomy})
        if unknown:
            raise DataContractError(
                f"{len(unknown)} labels are not in the taxonomy, {unknown[0]!r} the first"
            )
        if len(distinct) < 2:
            raise DataContractError(f"a head needs at least two classes, found {len(distinct)}")
        self.taxonomy = taxonomy
        chain = {c: (*taxonomy.ancestors(c), c) for c in distinct}
        self.classes = tuple(sorted(distinct, key=lambda c: chain[c]))
        self._chains = [chain[c] for c in self.classes]
        self.position = {c: i for i, c in enumerate(self.classes)}

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """Levels from the top (depth 1) down to the deepest class."""
        deepest = max(map(len, self._chains))
        return tuple(self._level(depth) for depth in range(1, deepest + 1))

    @cached_property
    def exact(self) -> frozenset[str]:
        """The classes with no class below them: nothing finer can be assigned."""
        return frozenset(self.classes) - {c for chain in self._chains for c in chain[:-1]}

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """Category ids of all levels, one level after another."""
        return tuple(category for level in self.levels for category in level.categories)

    @cached_property
    def paths(self) -> tuple[tuple[str, ...], ...]:
        """Path of each of `categories`."""
        return tuple(self.taxonomy[category].path for category in self.categories)

    def _level(self, depth: int) -> Level:
        at_depth = [c[depth - 1] if len(c) >= depth else None for c in self._chains]
        starts = [
            i
            for i, node in enumerate(at_depth)
            if i == 0 or node is None or node != at_depth[i - 1]
        ]
        keep = [k for k, i in enumerate(starts) if at_depth[i] is not None]
        return Level(
            tuple(str(at_depth[starts[k]]) for k in keep),
            np.array(starts, np.int64),
            np.array(keep, np.int64),
        )

    def best(self, classes: Probabilities) -> list[LevelBest]:
        """Best category of each level, for class probabilities of shape (rows, classes)."""
        found = []
        for level in self.levels:
            scores = level.probabilities(classes)
            position = scores.argmax(axis=1)
            found.append(
                LevelBest(position, np.take_along_axis(scores, position[:, None], 1)[:, 0])
            )
        return found

    def covers(self, category_id: str, label: str) -> bool:
        """Whether `category_id` is right for a listing labelled `label`: the label or above it."""
        return category_id == label or (
            label in self.taxonomy and category_id in self.taxonomy.ancestors(label)
        )
