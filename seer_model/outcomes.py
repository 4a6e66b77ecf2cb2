"""What became of listings whose category is known: scored rows beside their labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.categories import Decision
from seer_model.hierarchy import ClassTree

__all__ = ["Outcomes", "judge"]

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """What became of labelled listings; every array has an entry, or a row, a listing.

    Attributes:
        labels: The true categories.
        best: The best class, or None of a listing without a usable photo.
        photographed: There was a usable photo; the next four are False, or 0, where not.
        hit: The best class is the label.
        hit5: The label is among the best five classes.
        parent: The best class and the label have the same parent.
        confidence: Score of the best class.
        known: The label is one of the classes.
        assigned: The listing got a category.
        right: That category is the label or an ancestor of it.
        leaf: That category is a class and no ancestor of one.
        depths: int64, (listings, 3): categories on the path of the one assigned (none: 0), on the
            label's, and on both, the category itself included.
        levels: int64, (listings, depth): at each depth 1 where the best class has the label's
            category there, 0 where not, -1 where the label has none so deep.
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
    leaf: Flags
    depths: npt.NDArray[np.int64]
    levels: npt.NDArray[np.int64]


def judge(tree: ClassTree, labels: Sequence[str], scores: pa.Table) -> Outcomes:
    """Compare each scored listing with its label.

    Args:
        tree: The model's classes.
        labels: The true category of each row of `scores`; one that the taxonomy lacks has no
            ancestors.
        scores: As `scoring.SCORES`.

    Raises:
        ValueError: There are no rows, or not a label for each.
    """
    if len(labels) != scores.num_rows or not labels:
        raise ValueError(f"{len(labels)} labels for {scores.num_rows} listings")
    decisions = np.array(scores.column("decision").to_pylist(), object)
    photographed = np.array(decisions != Decision.REJECTED, np.bool_)
    assigned = np.array(decisions == Decision.ASSIGNED, np.bool_)
    # As scores, so that a listing's candidates are its classes from the best down.
    candidates = [
        {c["category_id"]: c["score"] for c in row or ()}
        for row in scores.column("candidates").to_pylist()
    ]
    best = [
        next(iter(found)) if usable else None
        for found, usable in zip(candidates, photographed, strict=True)
    ]
    category = [
        c if taken else None
        for c, taken in zip(scores.column("category_id").to_pylist(), assigned, strict=True)
    ]
    named: set[str] = {c for c in (*labels, *best, *category) if c is not None}
    chains = {c: _chain(tree, c) for c in named}
    above_a_class = {a for c in tree.classes for a in tree.taxonomy.ancestors(c)}
    deepest = max(len(chains[label]) for label in labels)
    return Outcomes(
        labels=labels,
        best=best,
        photographed=photographed,
        hit=np.array([b == y for b, y in zip(best, labels, strict=True)], np.bool_),
        hit5=np.array([y in found for y, found in zip(labels, candidates, strict=True)], np.bool_),
        parent=np.array(
            [
                b is not None and _parent(chains[b]) == _parent(chains[y])
                for b, y in zip(best, labels, strict=True)
            ],
            np.bool_,
        ),
        confidence=np.array(
            [0.0 if b is None else found[b] for b, found in zip(best, candidates, strict=True)]
        ),
        known=np.array([y in tree.position for y in labels], np.bool_),
        assigned=assigned,
        right=np.array([c in chains[y] for c, y in zip(category, labels, strict=True)], np.bool_),
        leaf=np.array([c is not None and c not in above_a_class for c in category], np.bool_),
        depths=np.array(
            [
                _depths(chains.get(c, ()) if c else (), chains[y])
                for c, y in zip(category, labels, strict=True)
            ],
            np.int64,
        ),
        levels=np.array(
            [
                _agreement(chains[b] if b else (), chains[y], deepest)
                for b, y in zip(best, labels, strict=True)
            ],
            np.int64,
        ),
    )


def _chain(tree: ClassTree, category_id: str) -> tuple[str, ...]:
    above = tree.taxonomy.ancestors(category_id) if category_id in tree.taxonomy else ()
    return (*above, category_id)


def _parent(chain: tuple[str, ...]) -> str:
    return chain[-2] if len(chain) > 1 else chain[0]


def _depths(assigned: tuple[str, ...], label: tuple[str, ...]) -> tuple[int, int, int]:
    return len(assigned), len(label), len(set(assigned) & set(label))


def _agreement(best: tuple[str, ...], label: tuple[str, ...], deepest: int) -> list[int]:
    return [
        -1 if depth >= len(label) else int(depth < len(best) and best[depth] == label[depth])
        for depth in range(deepest)
    ]
