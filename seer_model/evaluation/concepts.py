"""Evaluate screeners: how well the concepts of a challenger and a champion are found."""

from collections.abc import Mapping
from dataclasses import asdict
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

from seer_model.evaluation.comparison import Difference, wilson_interval
from seer_model.screener.concepts import Concept, ResolvedScreener

__all__ = ["KIND", "ConceptScores", "concept_record"]

KIND = "screener"
"""The value of `kind` in the record of a screener; that of a categorizer has none."""

_RESAMPLES = 500

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class ConceptScores(NamedTuple):
    """A screener's probabilities of the labelled listings.

    Attributes:
        model: The screener.
        scores: float64, (listings, the model's concepts).
    """

    model: ResolvedScreener
    scores: Floats


def concept_record(
    challenger: ConceptScores,
    champion: ConceptScores | None,
    has: Mapping[str, npt.NDArray[np.int8]],
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """Measure and compare the screeners.

    Args:
        challenger: Evaluated on the labelled listings.
        champion: Evaluated on the same listings, in the same order, or None.
        has: Of each concept with a label, int8, (listings,): 1 if the listing has it, 0 if not, -1
            if nobody said.
        origin: What was evaluated on; copied into the record.

    Returns:
        JSON-serializable. `challenger` and `champion` (None without one): the model, `figures` (the
        number of `listings`, and the mean `average_precision` of the concepts measured) and
        `concepts`, by name: `listings`, `with_it`, `average_precision`, `review_at`, `reviewed`
        (the share), `recall`, `review_precision`, `block_at`, `block_precision`, `block_recall`;
        the last with 95 % intervals (`…_interval`), None where nothing can be measured.
        `differences` of the average precision by shared concept, `missing_concepts` of the
        champion's that the challenger lacks, and `unmeasured`: the challenger's concepts without a
        listing that has them and one that lacks them.
    """
    challengers = _of_concepts(challenger, has)
    champions = _of_concepts(champion, has) if champion else None
    names = challenger.model.bundle.concepts.names
    lacking = [] if champion is None else champion.model.bundle.concepts.names
    return {
        "kind": KIND,
        **origin,
        "challenger": _model_record(challenger, challengers, has),
        "champion": champion and _model_record(champion, champions or {}, has),
        "differences": {
            name: asdict(_difference(challenger, champion, name, has[name]))
            for name in challengers
            if champion is not None and name in (champions or {})
        },
        "missing_concepts": [name for name in lacking if name not in names],
        "unmeasured": [name for name in names if name not in challengers],
    }


def _model_record(
    evaluated: ConceptScores,
    concepts: Mapping[str, Mapping[str, Any]],
    has: Mapping[str, npt.NDArray[np.int8]],
) -> dict[str, Any]:
    model, training = evaluated.model, evaluated.model.bundle.training
    labelled = np.zeros(len(evaluated.scores), bool)
    for of_concept in has.values():
        labelled |= of_concept >= 0
    found = [each["average_precision"] for each in concepts.values()]
    return {
        "model": f"{model.name}/{model.version}",
        "digest": model.bundle.digest,
        "backbone": f"{model.bundle.backbone.architecture}: {model.bundle.backbone.origin}",
        "licence": model.bundle.backbone.licence,
        "target_recall": training.get("target_recall"),
        "target_precision": training.get("target_precision"),
        "figures": {
            "listings": float(labelled.sum()),
            **({"average_precision": fmean(found)} if found else {}),
        },
        "concepts": concepts,
    }


def _of_concepts(
    evaluated: ConceptScores, has: Mapping[str, npt.NDArray[np.int8]]
) -> dict[str, dict[str, Any]]:
    found = {}
    for column, concept in enumerate(evaluated.model.bundle.concepts.concepts):
        labels = has.get(concept.name)
        if labels is not None and (labels == 1).any() and (labels == 0).any():
            known = labels >= 0
            found[concept.name] = _figures(
                concept, evaluated.scores[known, column], labels[known] == 1
            )
    return found


def _figures(concept: Concept, scores: Floats, has: Bools) -> dict[str, Any]:
    reviewed = scores >= concept.review_at
    blocked = scores >= (np.inf if concept.block_at is None else concept.block_at)
    return {
        "listings": len(has),
        "with_it": int(has.sum()),
        "average_precision": float(average_precision_score(has, scores)),
        "review_at": concept.review_at,
        "reviewed": float(reviewed.mean()),
        **_share("recall", reviewed[has]),
        **_share("review_precision", has[reviewed]),
        "block_at": concept.block_at,
        **_share("block_precision", has[blocked]),
        **_share("block_recall", blocked[has]),
    }


def _share(name: str, right: Bools) -> dict[str, Any]:
    if not len(right):
        return {name: None, f"{name}_interval": None}
    return {
        name: float(right.mean()),
        f"{name}_interval": list(wilson_interval(int(right.sum()), len(right))),
    }


def _difference(
    challenger: ConceptScores,
    champion: ConceptScores,
    name: str,
    labels: npt.NDArray[np.int8],
) -> Difference:
    """Difference of the average precision, with a paired bootstrap interval of 95 %."""
    known = labels >= 0
    has = labels[known] == 1
    scores = [
        each.scores[known, each.model.bundle.concepts.names.index(name)]
        for each in (challenger, champion)
    ]

    def difference(weights: Floats | None) -> float:
        one, other = (average_precision_score(has, each, sample_weight=weights) for each in scores)
        return float(one - other)

    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(_RESAMPLES):
        weights = rng.multinomial(len(has), np.full(len(has), 1 / len(has))).astype(np.float64)
        if weights[has].any():
            resampled.append(difference(weights))
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Difference(difference(None), float(low), float(high))
