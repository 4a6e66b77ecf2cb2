"""Goods that a head was not taught: how far they are from its classes, and what it makes of them.

That takes no photo of such goods. Whole classes, and whole branches, are held out in turn: a head
is trained without them, and then scores their listings.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.covariance import ledoit_wolf

from seer_model.categorizer.familiarity import Familiarity
from seer_model.categorizer.head import LinearHead
from seer_model.categorizer.hierarchy import ClassTree

__all__ = ["HeldOut", "fit_familiarity", "hold_out_classes", "score_held_out"]

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Labels = npt.NDArray[np.int64]

FOLDS = 5
_WHOLE_SHARE = 0.5
_AXES = 64
# Only so many rows are ever held in more than the two bytes a value that they come in.
_ROWS_AT_ONCE = 16_384


class HeldOut(NamedTuple):
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
        labels: int64, (photos,), from 0 to `classes` - 1, every class at least once.
        classes: Number of classes.
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
    means = (sums / counts - mean) / scale
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
    bias = (means * weight).sum(axis=1)
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
    train_without: Callable[[Labels], LinearHead],
    seed: int,
) -> HeldOut:
    """Score the listings of every class by a head that was trained without the class.

    Args:
        tree: The classes.
        photos: Photos to train on, float16, (photos, width).
        photo_labels: Their classes.
        listings: Features of fused listings, float32, (listings, width).
        listing_labels: Their classes.
        train_without: Trains a head, given the new position of each class, int64, (classes,); -1
            for those held out.
        seed: Which classes are held out together.
    """
    width = len(tree.classes)
    found = []
    for fold in hold_out_classes(tree, seed):
        is_kept = np.array([c not in fold for c in tree.classes])
        position = np.where(is_kept, np.cumsum(is_kept) - 1, -1)
        rows = np.flatnonzero(~is_kept[listing_labels])
        taught = is_kept[photo_labels]
        head = train_without(position)
        familiarity = fit_familiarity(
            photos[taught], position[photo_labels[taught]], int(is_kept.sum())
        )
        logits = np.full((len(rows), width), -np.inf, np.float32)
        logits[:, is_kept] = head.logits(listings[rows])
        distances = np.full((len(rows), width), np.inf, np.float32)
        distances[:, is_kept] = familiarity.distances(listings[rows])
        found.append(HeldOut(logits, distances, listing_labels[rows]))
    if not found:
        nothing = np.empty((0, width), np.float32)
        return HeldOut(nothing, nothing, np.empty(0, np.int64))
    return HeldOut(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
