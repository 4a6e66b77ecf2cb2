"""Per-listing outcomes: scored listings compared with their true categories."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.categories import Decision
from seer_model.categorizer.hierarchy import ClassTree

__all__ = ["Outcomes", "compare_with_labels"]

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of labelled listings; every array has one entry, or row, per listing.

    Attributes:
        labels: The true categories.
        best: The best class; None for a listing without a usable photo.
        photographed: There was a usable photo. `hit`, `hit5`, `parent` and `confidence` are False
            or 0 where not.
        hit: The best class is the label.
        hit5: The label is among the best five classes.
        parent: The best class and the label have the same parent.
        confidence: Score of the best class.
        known: The label is one of the classes.
        assigned: The listing was assigned a category.
        right: The assigned category is the label or an ancestor of it.
        exact: The assigned category is one of `ClassTree.exact`.
        depths: int64, (listings, 3): number of categories on the assigned category's path (its
            level; 0 if none), on the label's, and on both; a path includes the category itself.
        levels: int64, (listings, depth): for each depth, 1 where the best class has the label's
            category there, 0 where not, -1 where the label is not that deep.
    """

    labels: Sequence[str]
    best: Sequence[str | None]
    photographed: Flags
    hit: Flags
    hit5: Flags
    parent: Flags
    confidence: Floats
    known: Flags
    assigned: Flags
    right: Flags
    exact: Flags
    depths: npt.NDArray[np.int64]
    levels: npt.NDArray[np.int64]


def compare_with_labels(tree: ClassTree, labels: Sequence[str], scores: pa.Table) -> Outcomes:
    """Compare each scored listing with its label.

    Args:
        tree: The model's classes.
        labels: The true category of each row of `scores`; a category that is not in the taxonomy
            has no ancestors.
        scores: Of the schema `scoring.SCORES`.

    Raises:
        ValueError: There are no rows, or the numbers of labels and rows differ.
    """
    if len(labels) != scores.num_rows or not labels:
        raise ValueError(f"{len(labels)} labels for {scores.num_rows} listings")
    decisions = np.array(scores.column("decision").to_pylist(), object)
    photographed = np.array(decisions != Decision.REJECTED, np.bool_)
    assigned = np.array(decisions == Decision.ASSIGNED, np.bool_)
    # Score by class, best first.
    candidates = [
        {c["category_id"]: c["score"] for c in row or ()}
        for row in scores.column("candidates").to_pylist()
    ]
    best = [
        next(iter(found)) if usable else None
        for found, usable in zip(candidates, photographed, strict=True)
    ]
    categories = [
        category if is_assigned else None
        for category, is_assigned in zip(
            scores.column("category_id").to_pylist(), assigned, strict=True
        )
    ]
    named: set[str] = {c for c in (*labels, *best, *categories) if c is not None}
    paths = {c: _path(tree, c) for c in named}
    deepest = max(len(paths[label]) for label in labels)

    def flags(found: list[bool]) -> Flags:
        return np.array(found, np.bool_)

    best_and_label = list(zip(best, labels, strict=True))
    category_and_label = list(zip(categories, labels, strict=True))
    return Outcomes(
        labels=labels,
        best=best,
        photographed=photographed,
        hit=flags([b == y for b, y in best_and_label]),
        hit5=flags([y in found for y, found in zip(labels, candidates, strict=True)]),
        parent=flags(
            [b is not None and _parent(paths[b]) == _parent(paths[y]) for b, y in best_and_label]
        ),
        confidence=np.array(
            [0.0 if b is None else found[b] for b, found in zip(best, candidates, strict=True)]
        ),
        known=flags([y in tree.position for y in labels]),
        assigned=assigned,
        right=flags([c in paths[y] for c, y in category_and_label]),
        exact=flags([c in tree.exact for c in categories]),
        depths=np.array(
            [_depths(paths[c] if c else (), paths[y]) for c, y in category_and_label], np.int64
        ),
        levels=np.array(
            [_agreement(paths[b] if b else (), paths[y], deepest) for b, y in best_and_label],
            np.int64,
        ),
    )


def _path(tree: ClassTree, category_id: str) -> tuple[str, ...]:
    """Return the categories from the top down to this one."""
    above = tree.taxonomy.ancestors(category_id) if category_id in tree.taxonomy else ()
    return (*above, category_id)


def _parent(path: tuple[str, ...]) -> str:
    return path[-2] if len(path) > 1 else path[0]


def _depths(assigned: tuple[str, ...], label: tuple[str, ...]) -> tuple[int, int, int]:
    return len(assigned), len(label), len(set(assigned) & set(label))


def _agreement(best: tuple[str, ...], label: tuple[str, ...], deepest: int) -> list[int]:
    return [
        -1 if depth >= len(label) else int(depth < len(best) and best[depth] == label[depth])
        for depth in range(deepest)
    ]
