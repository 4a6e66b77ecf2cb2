"""How good categories are, on listings whose category is known."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.categories import Decision
from seer_model.hierarchy import ClassTree

__all__ = ["Quality", "measure_quality"]

Flags = npt.NDArray[np.bool_]

_BINS = 10


@dataclass(frozen=True)
class Quality:
    """Figures over labelled listings; shares are between 0 and 1.

    Attributes:
        listings: Labelled listings.
        photographed: Those of them with a usable photo; top-1, top-5, parent and calibration
            error are over these.
        known: The label is one of the classes, of all labelled listings; the others can be right
            only by an ancestor.
        top1: The best class is the label.
        top5: The label is among the best five classes.
        parent: The best class and the label have the same parent.
        coverage: Assigned, of all labelled listings.
        precision: Right, of those assigned: the category is the label or an ancestor of it.
            None where nothing was assigned.
        assigned_leaf: The category is a class itself and no ancestor, of those assigned.
        calibration_error: Expected calibration error of the best class's score, ten equal bins
            (Guo et al. 2017, equation 3).
    """

    listings: int
    photographed: int
    known: float
    top1: float
    top5: float
    parent: float
    coverage: float
    precision: float | None
    assigned_leaf: float | None
    calibration_error: float

    def figures(self) -> dict[str, float]:
        """The figures that have a value, by name."""
        return {name: float(value) for name, value in asdict(self).items() if value is not None}


def measure_quality(tree: ClassTree, labels: Sequence[str], scores: pa.Table) -> Quality:
    """Compare scored listings with their labels.

    Args:
        tree: The model's classes.
        labels: The true category of each row of `scores`.
        scores: As `scoring.SCORES`.

    Raises:
        ValueError: There are no rows, or not a label for each.
    """
    if len(labels) != scores.num_rows or not labels:
        raise ValueError(f"{len(labels)} labels for {scores.num_rows} listings")
    decisions = scores.column("decision").to_pylist()
    categories = scores.column("category_id").to_pylist()
    candidates = scores.column("candidates").to_pylist()
    read = [i for i, decision in enumerate(decisions) if decision != Decision.REJECTED]
    assigned = [i for i, decision in enumerate(decisions) if decision == Decision.ASSIGNED]
    best = {i: candidates[i][0]["category_id"] for i in read}
    hits = np.array([best[i] == labels[i] for i in read], np.bool_)
    confidence = np.array([candidates[i][0]["score"] for i in read], np.float64)
    right = [tree.covers(categories[i], labels[i]) for i in assigned]
    above_a_class = {a for c in tree.classes for a in tree.taxonomy.ancestors(c)}
    leaf = [categories[i] not in above_a_class for i in assigned]
    return Quality(
        listings=len(labels),
        photographed=len(read),
        known=_share([label in tree.position for label in labels]),
        top1=_share(hits),
        top5=_share([labels[i] in {c["category_id"] for c in candidates[i]} for i in read]),
        parent=_share([_parent(tree, best[i]) == _parent(tree, labels[i]) for i in read]),
        coverage=len(assigned) / len(labels),
        precision=_share(right) if assigned else None,
        assigned_leaf=_share(leaf) if assigned else None,
        calibration_error=_calibration_error(confidence, hits),
    )


def _share(flags: Sequence[bool] | Flags) -> float:
    return float(np.mean(flags)) if len(flags) else 0.0


def _parent(tree: ClassTree, category_id: str) -> str:
    above = tree.taxonomy.ancestors(category_id) if category_id in tree.taxonomy else ()
    return above[-1] if above else category_id


def _calibration_error(confidence: npt.NDArray[np.float64], hits: Flags) -> float:
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [
        abs(confidence[bins == b].mean() - hits[bins == b].mean()) * (bins == b).mean()
        for b in range(_BINS)
        if (bins == b).any()
    ]
    return float(sum(gaps))
