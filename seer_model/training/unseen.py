"""Goods that a head was not taught: how far they are from its classes, and what it makes of them.

That takes no photo of such goods. Whole classes, and whole branches, are held out in turn: a head
is trained without them, and then scores their listings.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.covariance import ledoit_wolf

from seer_model.categorizer.calibration import CalibrationSample, fit_temperature
from seer_model.categorizer.familiarity import Familiarity, level_distances
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.thresholds import class_probabilities
from seer_model.linear_head import LinearHead

__all__ = [
    "UnseenListings",
    "add_unseen",
    "choose_limits",
    "fit_familiarity",
    "hold_out_classes",
    "score_held_out",
]

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Labels = npt.NDArray[np.int64]

FOLDS = 5
FAMILIAR_SHARE = 0.98
"""Share of the known listings that are familiar, at each level."""

_WHOLE_SHARE = 0.5
_AXES = 64
# Only so many rows are ever held in more than the two bytes a value that they come in.
_ROWS_AT_ONCE = 16_384


class UnseenListings(NamedTuple):
    """Listings of held-out classes, as heads see them that were not taught these classes.

    Attributes:
        logits: float32, (listings, classes); -inf for the classes held out with the listing's.
        distances: float32, (listings, classes); inf for the same.
        labels: int64, (listings,): the listing's own class.
    """

    logits: Floats
    distances: Floats
    labels: Labels


def fit_familiarity(features: Halves, labels: Labels, classes: int) -> Familiarity:
    """Fit the classes' means and their common covariance; the limits stay to be chosen.

    Features are standardised first. The covariance within the classes is shrunk (Ledoit & Wolf
    2004); beyond its largest axes one variance stands for all. If no class has two photos, the
    covariance of all photos takes its place.

    Args:
        features: float16, (photos, width).
        labels: int64, (photos,), from 0 to `classes` - 1.
        classes: Number of classes; one without a photo is infinitely far from everything.
    """
    counts = np.bincount(labels, minlength=classes)[:, None]
    sums = np.zeros((classes, features.shape[1]))
    squares = np.zeros(features.shape[1])
    for first in range(0, len(labels), _ROWS_AT_ONCE):
        part = features[first : first + _ROWS_AT_ONCE].astype(np.float64)
        np.add.at(sums, labels[first : first + _ROWS_AT_ONCE], part)
        squares += (part**2).sum(axis=0)
    mean = sums.sum(axis=0) / len(labels)
    scale = np.sqrt(np.maximum(squares / len(labels) - mean**2, 0))
    scale[scale < 1e-6] = 1.0
    means = (sums / np.maximum(counts, 1) - mean) / scale
    # Of many photos, evenly chosen ones do.
    rows = np.unique(np.linspace(0, len(labels) - 1, _ROWS_AT_ONCE).astype(np.int64))
    several = rows[counts[labels[rows], 0] > 1]
    z = (features[several if len(several) else rows] - mean) / scale
    spread = z - means[labels[several]] if len(several) else z
    variances, directions = np.linalg.eigh(ledoit_wolf(spread, assume_centered=True)[0])
    variances = np.maximum(variances, 1e-6)
    axes = min(_AXES, len(variances) - 1)
    rest = variances[: len(variances) - axes].mean()
    variances, directions = variances[-axes:], directions[:, -axes:].T
    # Along an axis the distance is z²/variance, elsewhere z²/rest: see `Familiarity`.
    scale, means = scale * np.sqrt(rest), means / np.sqrt(rest)
    shortening = directions * np.sqrt(np.maximum(1 - rest / variances, 0))[:, None]
    weight = means - means @ shortening.T @ shortening
    bias = np.where(counts[:, 0] > 0, (means * weight).sum(axis=1), np.inf)
    arrays = (mean, scale, shortening, weight, bias, np.empty(0))
    return Familiarity(*(np.ascontiguousarray(array, np.float32) for array in arrays))


def hold_out_classes(tree: ClassTree, seed: int) -> list[frozenset[str]]:
    """Split the classes into folds to hold out in turn, so that each class is held out once.

    About half of the branches that fit into a fold are held out as a whole, as if the whole branch
    were new. The classes of the others are in folds of their own, and their siblings stay.

    Args:
        tree: The classes.
        seed: Which branches are held out as a whole, and the order.

    Returns:
        At most `FOLDS` sets of classes; each leaves two classes at least. None if there are fewer
        than three classes.
    """
    if len(tree.classes) < 3:
        return []
    rng = np.random.default_rng(seed)
    most = max(1, len(tree.classes) // FOLDS)
    chains = {c: (*tree.taxonomy.ancestors(c), c) for c in tree.classes}

    def units(classes: Sequence[str], depth: int) -> Iterator[list[str]]:
        for _, found in groupby(classes, key=lambda c: chains[c][: depth + 1]):
            branch = list(found)
            if len(branch) == 1 or (len(branch) <= most and rng.random() < _WHOLE_SHARE):
                yield branch
            else:
                yield from units(branch, depth + 1)

    found = list(units(tree.classes, 0))
    folds: list[list[str]] = [[] for _ in range(min(FOLDS, len(found)))]
    # The largest first, so that the folds become about as large as each other.
    for i in sorted(rng.permutation(len(found)), key=lambda i: -len(found[i])):
        min(folds, key=len).extend(found[i])
    return [frozenset(fold) for fold in folds if len(fold) <= len(tree.classes) - 2]


def score_held_out(
    tree: ClassTree,
    photos: Halves,
    photo_labels: Labels,
    listings: Floats,
    listing_labels: Labels,
    retrain: Callable[[npt.NDArray[np.bool_]], LinearHead],
    seed: int,
) -> UnseenListings | None:
    """Score the listings of every class by a head that was trained without the class.

    Args:
        tree: The classes.
        photos: Photos to train on, float16, (photos, width).
        photo_labels: Their classes.
        listings: Features of fused listings, float32, (listings, width).
        listing_labels: Their classes.
        retrain: Trains a head on some classes alone, bool, (classes,); for the others its logits
            are -inf.
        seed: Which classes are held out together.

    Returns:
        None if there are too few classes to hold one out.
    """
    found = []
    for fold in hold_out_classes(tree, seed):
        kept = np.array([c not in fold for c in tree.classes], np.bool_)
        rows, taught = ~kept[listing_labels], kept[photo_labels]
        familiarity = fit_familiarity(photos[taught], photo_labels[taught], len(kept))
        distances = familiarity.distances(listings[rows])
        found.append(
            UnseenListings(retrain(kept).logits(listings[rows]), distances, listing_labels[rows])
        )
    if not found:
        return None
    return UnseenListings(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def choose_limits(distances: Floats, sample: CalibrationSample, tree: ClassTree) -> Floats:
    """Choose how far a listing may be from the category of each level: as far as most known ones.

    Args:
        distances: float32, (listings, classes), of the listings of `sample`.
        sample: Listings that neither head nor familiarity was fitted on.
        tree: The classes.

    Returns:
        float32, (levels,); `FAMILIAR_SHARE` of the listings of known classes are within.
    """
    of_levels = _of_levels(distances, sample, tree, fit_temperature(sample, tree))
    own = [tree.position.get(label, -1) for label in sample.labels]
    known = np.isfinite(sample.logits[range(len(own)), own]) & (np.array(own) >= 0)
    if not known.any():  # One listing a class, each unknown to its head.
        return np.full(len(tree.levels), np.finfo(np.float32).max, np.float32)
    limits = np.quantile(of_levels[known], FAMILIAR_SHARE, axis=0, method="higher")
    return np.asarray(limits, np.float32)


def add_unseen(
    sample: CalibrationSample,
    distances: Floats,
    limits: Floats,
    tree: ClassTree,
    held_out: UnseenListings | None = None,
    share: float = 0.0,
) -> CalibrationSample:
    """Mix known and held-out listings as new goods would be among a day's listings.

    As many held-out listings are taken as make up the share, evenly over their scores at the top
    level (systematic sampling). All of them with a weight would vary less, but an exact test, which
    shows more, takes no weights. Where a listing is not familiar it
    is not allowed, and so counts neither as right nor as wrong.

    Args:
        sample: Listings as they are known, unweighted.
        distances: float32, (listings, classes), of these.
        limits: Of `Familiarity`.
        tree: The classes.
        held_out: Listings that stand for goods never seen; None for none.
        share: Their share among a day's listings, from 0 to below 1.
    """
    temperature = fit_temperature(sample, tree)
    allowed = _of_levels(distances, sample, tree, temperature) <= limits
    if held_out is None:
        return replace(sample, allowed=allowed)
    known = len(sample.labels)
    count = min(round(share / (1 - share) * known), len(held_out.labels))
    top = tree.best(class_probabilities(held_out.logits, temperature))[0].score
    evenly = (np.arange(count) + 0.5) * len(top) / max(count, 1)
    rows = np.argsort(top, kind="stable")[evenly.astype(np.int64)]
    labels = [tree.classes[i] for i in held_out.labels[rows]]
    unseen = CalibrationSample(held_out.logits[rows], labels)
    new_allowed = _of_levels(held_out.distances[rows], unseen, tree, temperature) <= limits
    return CalibrationSample(
        np.concatenate([sample.logits, unseen.logits]),
        [*sample.labels, *labels],
        allowed=np.concatenate([allowed, new_allowed]),
    )


def _of_levels(
    distances: Floats, sample: CalibrationSample, tree: ClassTree, temperature: float
) -> Floats:
    best = tree.best(class_probabilities(sample.logits, temperature))
    return level_distances(distances, tree, best)
