"""Cross-fitting: a head from all labels, and logits of each listing from a head that lacked it.

Without a split to hold out, and with few labels, every listing serves twice: in the head, and, by a
head of the other folds, in the calibration (Stone 1974; Chernozhukov et al. 2018).
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from seer_model.categorizer.head import LinearHead
from seer_model.training.ridge import (
    STRENGTHS,
    Choice,
    HeldOutPhotos,
    choose_strength,
    ridge_heads,
)

__all__ = ["CrossFit", "cross_fit", "deal_folds"]

log = logging.getLogger(__name__)

Labels = npt.NDArray[np.int64]

_FOLDS = 5


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


def deal_folds(labels: Labels) -> Labels:
    """Deal listings to folds, each class evenly.

    Listings that follow each other stay together: they are often of one sender or one shoot, and
    near-duplicates in different folds would make the calibration too bold.

    Args:
        labels: int64, (listings,), in the order of their ids.

    Returns:
        int64, (listings,), the fold of each, from 0.
    """
    counts = np.bincount(labels)
    order = np.argsort(labels, kind="stable")
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.concatenate([np.arange(count) for count in counts])
    # Classes of few listings begin at different folds.
    return (ranks * _FOLDS // counts[labels] + labels) % _FOLDS


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
    heads = [_without(features, labels, folds != fold, classes) for fold in range(_FOLDS)]
    choice = choose_strength(
        HeldOutPhotos(by_strength, features[folds == fold], labels[folds == fold])
        for fold, by_strength in enumerate(heads)
    )
    log.info(
        "cross-fitting on %d photos in %d folds: ridge with a penalty of %g, loss %.3f",
        *(len(labels), _FOLDS, choice.strength, choice.loss),
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
