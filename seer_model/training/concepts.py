"""Train a screener's concepts on embeddings: a calibrated logistic regression each.

A photo has a concept, lacks it, or nobody said; each concept learns from the photos of which
somebody said. A listing's probability is that of its likeliest photo, since one is enough.

1. *Learn.* The penalty is chosen for its average precision by cross-fitting, the listings that look
   alike in one fold: photos of one thing would vouch for each other.
2. *Calibrate.* Platt's sigmoid makes probabilities of the logits of listings: those in `val` where
   it has listings with and without the concept, and otherwise all, each by the head of the folds
   that it is not in.
3. *Review* from the highest threshold on that reaches the recall asked for, *block* from the lowest
   on that reaches the precision; each with a guarantee of 1 - `ERROR` over the draw of the listings
   (an exact binomial test of a threshold that is chosen by the order of scores alone, and
   `categorizer.safe_threshold`).
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from seer_model.categorizer.calibration import ERROR
from seer_model.categorizer.safe_threshold import safe_threshold
from seer_model.linear_head import LinearHead
from seer_model.screener.concepts import Concept, Concepts
from seer_model.training.crossfit import folds_by_looks
from seer_model.training.labelled import LabelledPhotos
from seer_model.training.watch import Watch, unwatched

__all__ = [
    "FittedConcepts",
    "LabelledConcepts",
    "RecallThreshold",
    "fit_concepts",
    "listing_scores",
    "recall_threshold",
]

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_STRENGTHS = (1e-3, 1e-2, 1e-1)
"""Values of scikit-learn's C, the inverse of the penalty."""
_FEWEST_LISTINGS = 2
"""Listings with a concept, and without it, that it takes to cross-fit."""


class LabelledConcepts(NamedTuple):
    """Embedded photos and what they show, one entry a photo, sorted by listing.

    Attributes:
        listing_ids: The photo's listing.
        vectors: Embeddings, float16, (photos, width).
        names: The concepts.
        shows: int8, (photos, concepts): 1 if the photo has the concept, 0 if not, -1 if nobody
            said.
        in_val: bool, (photos,): whether its listing is to calibrate by.
        chosen: bool, (photos,): whether its listing was labelled because a model was unsure of it,
            so that nothing is calibrated on it.
    """

    listing_ids: Sequence[str]
    vectors: npt.NDArray[np.float16]
    names: Sequence[str]
    shows: npt.NDArray[np.int8]
    in_val: Bools
    chosen: Bools


class FittedConcepts(NamedTuple):
    """What was learned.

    Attributes:
        concepts: The concepts with their thresholds; None if none could be learned.
        figures: Of each concept learned, by name: `listings` and `with_it` that it was calibrated
            on, `calibrated_on` (`val` or `cross-fitting`), `average_precision`, `review_at`,
            `recall`, `reviewed_share`, `recall_labels_missing` (how many more listings with it
            would show the recall; 0 if it is shown), `block_at`, `blocked_recall`.
        left_out: Why the others could not be learned, by name.
    """

    concepts: Concepts | None
    figures: dict[str, dict[str, Any]]
    left_out: dict[str, str]


def fit_concepts(
    photos: LabelledConcepts,
    *,
    target_recall: float,
    target_precision: float,
    watch: Watch = unwatched,
) -> FittedConcepts:
    """Learn each concept.

    Args:
        photos: What to learn from.
        target_recall: Of the listings with a concept, the share to be reviewed or blocked.
        target_precision: Of the listings blocked for a concept, the share that should have it.
        watch: Shows the concepts.
    """
    heads: list[LinearHead] = []
    learned: list[Concept] = []
    figures: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    _, listing = np.unique(np.asarray(photos.listing_ids, object).astype(str), return_inverse=True)
    label = f"training on {len(photos.listing_ids)} photos"
    for column, name in enumerate(watch(photos.names, label, "concepts", len(photos.names))):
        found = _fit_concept(photos, listing, column)
        if isinstance(found, str):
            left_out[name] = found
            continue
        review = recall_threshold(found.scores[found.labels], target_recall)
        block_at = safe_threshold(found.scores, found.labels, None, target_precision, ERROR)
        review_at = review.threshold if block_at is None else min(review.threshold, block_at)
        concept = Concept(name=name, review_at=review_at, block_at=block_at)
        learned.append(concept)
        heads.append(found.head)
        figures[name] = {"calibrated_on": found.calibrated_on, **_figures(found, concept, review)}
    if not learned:
        return FittedConcepts(None, figures, left_out)
    weight = np.concatenate([head.weight for head in heads])
    bias = np.concatenate([head.bias for head in heads])
    return FittedConcepts(Concepts(tuple(learned), LinearHead(weight, bias)), figures, left_out)


class RecallThreshold(NamedTuple):
    """The threshold for a recall.

    Attributes:
        threshold: One of the scores.
        labels_missing: How many more would show that the recall is reached; 0 if that is shown.
    """

    threshold: float
    labels_missing: int


def recall_threshold(scores: Floats, target: float, error: float = ERROR) -> RecallThreshold:
    """Choose the highest threshold that is shown to reach a recall.

    The k-th lowest of n scores misses k - 1. If it missed more than 1 - target of all, so few would
    be missed here with at most the probability P(Binomial(n, 1 - target) < k), so the largest k at
    which that is at most `error` is chosen: a distribution-free tolerance limit (Wilks 1941).

    Args:
        scores: Of what is to be found, float64, (n,), n at least 1.
        target: The recall, between 0 and 1.
        error: Probability that it is not reached.

    Returns:
        The lowest score where too few show it.
    """
    ranked = np.sort(scores)
    shown = binom.cdf(np.arange(len(ranked)), len(ranked), 1 - target) <= error
    missing = 0 if shown[0] else math.ceil(math.log(error) / math.log(target)) - len(ranked)
    return RecallThreshold(float(ranked[max(int(shown.sum()) - 1, 0)]), missing)


def listing_scores(scores: Floats, listing: npt.NDArray[np.int64]) -> Floats:
    """The highest score of each listing's photos, by the listing's number.

    Args:
        scores: float64, (photos,).
        listing: int64, (photos,), in ascending order.
    """
    _, first = np.unique(listing, return_index=True)
    return np.asarray(np.maximum.reduceat(scores, first), np.float64)


class _Found(NamedTuple):
    """A head of one row, and the listings that it was calibrated on."""

    head: LinearHead
    scores: Floats
    labels: Bools
    calibrated_on: str


def _fit_concept(
    photos: LabelledConcepts, listing: npt.NDArray[np.int64], column: int
) -> _Found | str:
    """Learn a concept; returns why not, if it cannot be learned."""
    known = photos.shows[:, column] >= 0
    shows = photos.shows[:, column] == 1
    val = known & photos.in_val
    has_val = _has_both(shows[val])
    fit = known & ~photos.in_val if has_val else known
    has_it, lacks_it = (len(np.unique(listing[fit & part])) for part in (shows, ~shows))
    if min(has_it, lacks_it) < _FEWEST_LISTINGS:
        return f"{has_it} listings to learn from have it, and {lacks_it} lack it"
    features, labels, groups = photos.vectors[fit], shows[fit], listing[fit]
    penalty, held_out = _choose_penalty(features, labels, groups)
    head = _logistic(features, labels, penalty)
    if has_val:
        rows, logits = val, _logits(head, photos.vectors[val])
    else:
        rows, logits = fit & ~photos.chosen, held_out[~photos.chosen[fit]]
        if not _has_both(shows[rows]):
            return "a model chose all its listings: add some that were drawn at random"
    by_listing = listing_scores(logits, listing[rows])
    has = listing_scores(shows[rows].astype(np.float64), listing[rows]) > 0
    if not _has_both(has):
        return "no listing to calibrate on lacks it"
    slope, offset = _platt(by_listing, has)
    if slope <= 0:
        return "its photos cannot be told from the others"
    scaled = LinearHead(
        head.weight * np.float32(slope), (head.bias * slope + offset).astype(np.float32)
    )
    scores = expit(slope * by_listing + offset)
    if has_val:  # Exactly what will be computed.
        scores = listing_scores(expit(_logits(scaled, photos.vectors[val])), listing[val])
    return _Found(scaled, scores, has, "val" if has_val else "cross-fitting")


def _has_both(labels: Bools) -> bool:
    return bool(labels.any() and not labels.all())


def _choose_penalty(
    features: npt.NDArray[np.float16],
    labels: Bools,
    groups: npt.NDArray[np.int64],
) -> tuple[float, Floats]:
    """The best of `_STRENGTHS`, and each photo's logit by a head that has seen nothing like it."""
    _, listing = np.unique(groups, return_inverse=True)
    has = listing_scores(labels.astype(np.float64), listing).astype(np.int64)
    photos = LabelledPhotos([str(each) for each in listing], [""] * len(labels), features)
    folds = folds_by_looks(photos, has)[listing]
    logits = np.zeros((len(_STRENGTHS), len(labels)))
    for fold in range(int(folds.max()) + 1):
        rows, others = folds != fold, folds == fold
        if not _has_both(labels[rows]):
            continue
        for row, strength in enumerate(_STRENGTHS):
            head = _logistic(features[rows], labels[rows], strength)
            logits[row, others] = _logits(head, features[others])
    precisions = [average_precision_score(labels, each) for each in logits]
    best = int(np.argmax(precisions))
    return _STRENGTHS[best], logits[best]


def _logistic(features: npt.NDArray[np.float16], labels: Bools, strength: float) -> LinearHead:
    """A head of one row; the standardisation of the features is folded into it."""
    mean = features.mean(axis=0, dtype=np.float64)
    deviation = features.std(axis=0, dtype=np.float64)
    deviation[deviation < 1e-6] = 1.0
    standardised = ((features - mean) / deviation).astype(np.float32)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    model.fit(standardised, labels)
    weight = model.coef_.astype(np.float64) / deviation
    bias = model.intercept_ - weight @ mean
    return LinearHead(weight.astype(np.float32), bias.astype(np.float32))


def _logits(head: LinearHead, features: npt.NDArray[np.float16]) -> Floats:
    return head.logits(features.astype(np.float32))[:, 0].astype(np.float64)


def _platt(logits: Floats, labels: Bools) -> tuple[float, float]:
    """Slope and offset of the sigmoid, on Platt's targets (1999), which few labels do not saturate.

    A target t between 0 and 1 is a row with the label, of weight t, and one without it, of weight
    1 - t.
    """
    has_it, lacks_it = labels.sum(), (~labels).sum()
    targets = np.where(labels, (has_it + 1) / (has_it + 2), 1 / (lacks_it + 2))
    scale = logits.std() or 1.0
    model = LogisticRegression(C=1e6, max_iter=1000)
    model.fit(
        np.tile(logits / scale, 2)[:, None],
        np.repeat([True, False], len(logits)),
        np.concatenate([targets, 1 - targets]),
    )
    return float(model.coef_[0, 0]) / scale, float(model.intercept_[0])


def _figures(found: _Found, concept: Concept, review: RecallThreshold) -> Mapping[str, Any]:
    reviewed = found.scores >= concept.review_at
    blocked = found.scores >= (math.inf if concept.block_at is None else concept.block_at)
    return {
        "listings": len(found.labels),
        "with_it": int(found.labels.sum()),
        "average_precision": float(average_precision_score(found.labels, found.scores)),
        "review_at": concept.review_at,
        "recall": float(reviewed[found.labels].mean()),
        "reviewed_share": float(reviewed.mean()),
        "recall_labels_missing": review.labels_missing,
        "block_at": concept.block_at,
        "blocked_recall": float(blocked[found.labels].mean()),
    }
