"""Cross-fitting: a head from all labels, and logits of each listing from a head that lacked it.

Without a split to hold out, and with few labels, every listing serves twice: in the head, and, by a
head of the other folds, in the calibration (Stone 1974; Chernozhukov et al. 2018).

Listings of one sender, shop or shoot resemble each other. In different folds they would make the
calibration too bold for those of new ones, so they stay together: by a slice that says who belongs
together, or else by their looks.
"""

import logging
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from schemas.errors import DataContractError
from seer_model.categorizer.scoring import fuse_photos
from seer_model.linear_head import LinearHead
from seer_model.training.labelled import LabelledPhotos, listing_bounds, slice_names
from seer_model.training.ridge import (
    STRENGTHS,
    Choice,
    HeldOutPhotos,
    choose_strength,
    ridge_heads,
)

__all__ = ["CrossFit", "cross_fit", "folds_by_looks", "folds_by_slice"]

log = logging.getLogger(__name__)

Labels = npt.NDArray[np.int64]

_CLUSTERS = 3
_FOLDS_BY_SLICE = 5


class CrossFit(NamedTuple):
    """What cross-fitting found.

    Attributes:
        head: From all photos.
        fold_heads: One per fold, from the photos of the others. A class that those lack has the
            bias -inf.
        choice: The penalty, and its loss.
    """

    head: LinearHead
    fold_heads: Sequence[LinearHead]
    choice: Choice


def folds_by_looks(photos: LabelledPhotos, labels: Labels) -> Labels:
    """Deal each class to three folds: its listings in three clusters, one a fold.

    Every fold then lacks what looks most alike (leave-one-cluster-out, Meredig et al. 2018, found
    by k-means on the class's standardised features).

    Args:
        photos: Grouped by listing.
        labels: int64, (listings,).

    Returns:
        int64, (listings,), the fold of each, from 0.
    """
    bounds = listing_bounds(photos.listing_ids)
    folds = np.empty(len(labels), np.int64)
    by_class = np.argsort(labels, kind="stable")
    for label, rows in enumerate(np.split(by_class, np.cumsum(np.bincount(labels))[:-1])):
        of_rows = np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in rows])
        features = fuse_photos(photos.vectors[of_rows], np.diff(bounds)[rows])
        # Classes of few listings begin at different folds.
        folds[rows] = (_clusters(features) + label) % _CLUSTERS
    return folds


def _clusters(features: npt.NDArray[np.float32]) -> Labels:
    """The cluster of each listing, from 0."""
    standardised = StandardScaler().fit_transform(features)
    kmeans = KMeans(min(_CLUSTERS, len(features)), n_init=3, random_state=0)
    with warnings.catch_warnings():
        # There are fewer clusters where listings are equal.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(kmeans.fit_predict(standardised), np.int64)


def folds_by_slice(photos: LabelledPhotos, name: str) -> Labels:
    """Deal listings to at most five folds, those with the same value of a slice to one.

    A listing without the slice stands alone.

    Args:
        photos: Grouped by listing.
        name: Of the slice, such as the sender.

    Returns:
        int64, (listings,), the fold of each, from 0.

    Raises:
        DataContractError: There are no two values.
    """
    values = [slices.get(name) for slices in photos.listing_slices()]
    if len(set(values) - {None}) < 2:
        raise DataContractError(
            f"--fold-by {name}: the labelled listings of train have no two values of this slice; "
            f"they have {slice_names(photos.slices)}"
        )
    numbers: dict[str | int, int] = {}
    groups = [
        numbers.setdefault(i if value is None else value, len(numbers))
        for i, value in enumerate(values)
    ]
    folds = np.empty(len(groups), np.int64)
    dealt = GroupKFold(min(_FOLDS_BY_SLICE, len(numbers))).split(groups, groups=groups)
    for fold, (_, rows) in enumerate(dealt):
        folds[rows] = fold
    return folds


def cross_fit(
    features: npt.NDArray[np.float16], labels: Labels, folds: Labels, *, classes: int
) -> CrossFit:
    """Choose the penalty of a ridge head by cross-validation, and fit it on all photos.

    The penalty has the best log-likelihood at its best temperature, to which the heads are scaled.

    Args:
        features: float16, (photos, width).
        labels: int64, (photos,), from 0 to `classes` - 1, every class at least once.
        folds: int64, (photos,), the fold of the photo's listing.
        classes: Number of classes.
    """
    count = int(folds.max()) + 1
    heads = [_without(features, labels, folds != fold, classes) for fold in range(count)]
    choice = choose_strength(
        HeldOutPhotos(by_strength, features[folds == fold], labels[folds == fold])
        for fold, by_strength in enumerate(heads)
    )
    log.info(
        "cross-fitting on %d photos in %d folds: ridge with a penalty of %g, loss %.3f",
        *(len(labels), count, choice.strength, choice.loss),
    )
    whole = ridge_heads(features, labels, classes=classes, strengths=[choice.strength])[0]
    chosen = STRENGTHS.index(choice.strength)
    return CrossFit(
        whole.scaled(1 / choice.temperature),
        [by_strength[chosen].scaled(1 / choice.temperature) for by_strength in heads],
        choice,
    )


def _without(
    features: npt.NDArray[np.float16], labels: Labels, rows: npt.NDArray[np.bool_], classes: int
) -> list[LinearHead]:
    """Heads of some rows, over all classes."""
    present, positions = np.unique(labels[rows], return_inverse=True)
    heads = []
    for found in ridge_heads(features[rows], positions, classes=len(present), strengths=STRENGTHS):
        weight = np.zeros((classes, features.shape[1]), np.float32)
        bias = np.full(classes, -np.inf, np.float32)
        weight[present], bias[present] = found.weight, found.bias
        heads.append(LinearHead(weight, bias))
    return heads
