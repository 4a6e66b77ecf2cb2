"""From labelled photos to a bundle: train the head, calibrate it, measure it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.errors import DataContractError
from schemas.taxonomy import Taxonomy
from seer_model.backbones.backbone import Backbone
from seer_model.categorizer.bundle import Bundle
from seer_model.categorizer.calibration import (
    CalibrationSample,
    Shortfall,
    calibrate,
    explain_no_threshold,
)
from seer_model.categorizer.familiarity import Familiarity
from seer_model.categorizer.head import LinearHead
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.scoring import LISTINGS, fuse_photos, score_listings
from seer_model.evaluation.metrics import Quality, measure_quality
from seer_model.evaluation.outcomes import Outcomes, compare_with_labels
from seer_model.training.crossfit import cross_fit, deal_folds
from seer_model.training.head import HeadTraining, train_head
from seer_model.training.ridge import (
    STRENGTHS,
    Choice,
    HeldOutPhotos,
    choose_strength,
    ridge_heads,
)
from seer_model.training.unseen import (
    add_unseen,
    choose_limits,
    fit_familiarity,
    score_held_out,
)
from seer_model.training.watch import Watch, unwatched

__all__ = ["FittedBundle", "LabelledPhotos", "fit_bundle"]


# Bounds the memory of scores in float64, and of photos as Python objects.
_LISTINGS_AT_ONCE = 16_384


class LabelledPhotos(NamedTuple):
    """Embedded photos of labelled listings, in any order; one entry per photo.

    Attributes:
        listing_ids: The photo's listing.
        labels: The listing's category.
        vectors: Embeddings, float16, (photos, width).
    """

    listing_ids: Sequence[str]
    labels: Sequence[str]
    vectors: npt.NDArray[np.float16]

    def by_listing(self) -> "LabelledPhotos":
        """The same photos, grouped by listing."""
        order = sorted(range(len(self.labels)), key=lambda i: self.listing_ids[i])
        return self.some(np.array(order, np.int64))

    def some(self, rows: npt.NDArray[np.int64]) -> "LabelledPhotos":
        """Some of the photos, in this order."""
        return LabelledPhotos(
            [self.listing_ids[i] for i in rows], [self.labels[i] for i in rows], self.vectors[rows]
        )


@dataclass(frozen=True)
class FittedBundle:
    """A new bundle, its head's training, and what it makes of the listings it was calibrated on.

    `shortfall` says why the bundle can assign nothing; None if it can.
    """

    bundle: Bundle
    training: HeadTraining
    outcomes: Outcomes
    quality: Quality
    shortfall: Shortfall | None


def fit_bundle(
    backbone: Backbone,
    taxonomy: Taxonomy,
    train: LabelledPhotos,
    val: LabelledPhotos,
    *,
    target_precision: float,
    unseen_share: float,
    seed: int,
    origin: dict[str, Any],
    watch: Watch = unwatched,
) -> FittedBundle:
    """Train a head and calibrate it on listings that it was not trained on.

    With `val`: logistic regression with early stopping on `val`, or ridge regression, whichever
    has the better log-likelihood on `val`, and calibration on `val`. Without: ridge regression on
    all of `train`, calibrated by cross-fitting, so that few labels serve for both. The bundle's
    `training` says which (`head`, `calibrated_on`).

    The head is trained on photos. Temperature and thresholds are chosen on listings, because
    listings are scored.

    Args:
        backbone: The backbone that embedded the photos.
        taxonomy: The labels' taxonomy.
        train: Training photos.
        val: Photos of other listings, or none.
        target_precision: Share of assigned listings that should be right.
        unseen_share: Share of goods never seen, among which the precision is to hold too.
        seed: Seed of the order of photos, and of the classes that are held out together.
        origin: Facts about the data, recorded in the bundle.
        watch: Shows the training's progress.

    Raises:
        DataContractError: A label is not in the taxonomy, there are fewer than two classes, or no
            photo of `val` has a class.
    """
    tree = ClassTree(taxonomy, train.labels)
    ClassTree(taxonomy, [*train.labels, *val.labels])
    if len(val.labels):
        name, training, held_out, retrain = _fit_with_val(tree, train, val, seed, watch)
    else:
        name, training, held_out, retrain = _fit_across(tree, train)
    calibrated_on = "val" if len(val.labels) else "cross-fitting of train"
    how = {"head": name, "calibrated_on": calibrated_on}
    parts = [one._replace(photos=part) for one in held_out for part in _in_parts(one.photos)]
    labels = [label for part in parts for label in part.labels()]
    fused = [part.fused() for part in parts]
    logits = [p.head.logits(features) for p, features in zip(parts, fused, strict=True)]
    distances = [
        p.familiarity.distances(features) for p, features in zip(parts, fused, strict=True)
    ]
    far, sample = np.concatenate(distances), CalibrationSample(np.concatenate(logits), labels)
    limits = choose_limits(far, sample, tree)
    known = add_unseen(sample, far, limits, tree)
    new = None
    if unseen_share:
        vectors, positions = train.vectors, _positions(tree, train.labels)
        new = score_held_out(tree, vectors, positions, *_some_listings(tree, train), retrain, seed)
    mixed = add_unseen(sample, far, limits, tree, new, unseen_share)
    calibration = calibrate(mixed, tree, target_precision)
    shortfall = explain_no_threshold(known, tree, calibration)
    if shortfall and not calibrate(known, tree, target_precision).assigns_nothing:
        shortfall = Shortfall(
            f"no score shows a precision of {target_precision:g} if {unseen_share:.0%} of the "
            "listings are goods never seen; train on more kinds and labels, fine-tune the "
            "backbone, or lower the target or --unseen-share",
            None,
        )
    familiarity = fit_familiarity(train.vectors, _positions(tree, train.labels), len(tree.classes))
    familiarity = replace(familiarity, limits=limits)
    bundle = Bundle(backbone, training.head, tree, calibration, familiarity=familiarity)
    scores = [score_listings(part.of(bundle), part.listings()) for part in parts]
    outcomes = compare_with_labels(tree, labels, pa.Table.from_batches(scores))
    quality = measure_quality(outcomes)
    bundle = replace(bundle, training={**origin, **how, "val": quality.figures()})
    return FittedBundle(bundle, training, outcomes, quality, shortfall)


Retrain = Callable[[npt.NDArray[np.bool_]], LinearHead]
"""Trains the head on some classes alone, (classes,); the others have the bias -inf."""


class _HeldOut(NamedTuple):
    """Photos grouped by listing, and a head and a familiarity that were not fitted on them."""

    head: LinearHead
    familiarity: Familiarity
    photos: LabelledPhotos

    def of(self, bundle: Bundle) -> Bundle:
        """The bundle, but for what it has seen of the photos."""
        assert bundle.familiarity is not None  # noqa: S101 - just fitted
        familiarity = replace(self.familiarity, limits=bundle.familiarity.limits)
        return replace(bundle, head=self.head, familiarity=familiarity)

    def labels(self) -> list[str]:
        return [self.photos.labels[first] for first in _bounds(self.photos.listing_ids)[:-1]]

    def fused(self) -> npt.NDArray[np.float32]:
        return fuse_photos(self.photos.vectors, np.diff(_bounds(self.photos.listing_ids)))

    def listings(self) -> pa.RecordBatch:
        photos = self.photos
        rows = [
            {
                "listing_id": photos.listing_ids[first],
                "photos": [
                    {"image_index": i, "vector": vector.tobytes(), "reject_reason": None}
                    for i, vector in enumerate(photos.vectors[first:last])
                ],
            }
            for first, last in pairwise(_bounds(photos.listing_ids))
        ]
        return pa.RecordBatch.from_pylist(rows, schema=LISTINGS)


def _fit_with_val(
    tree: ClassTree, train: LabelledPhotos, val: LabelledPhotos, seed: int, watch: Watch
) -> tuple[str, HeadTraining, list[_HeldOut], Retrain]:
    """Logistic regression or ridge, whichever has the better loss on `val`."""
    val, classes = val.by_listing(), len(tree.classes)
    known = np.array([label in tree.position for label in val.labels], np.bool_)
    if not known.any():
        raise DataContractError("no photo of the split val has a category of the split train")
    labels, features = _positions(tree, train.labels), val.vectors[known]
    val_labels = _positions(tree, [label for label in val.labels if label in tree.position])
    training = train_head(
        train.vectors, labels, features, val_labels, classes=classes, seed=seed, watch=watch
    )
    ridge = ridge_heads(train.vectors, labels, classes=classes, strengths=STRENGTHS)
    choice = choose_strength([HeldOutPhotos(ridge, features, val_labels)])
    name = "logistic regression"

    def train_again(kept: npt.NDArray[np.bool_]) -> LinearHead:
        position = np.cumsum(kept) - 1
        rows, val_rows = kept[labels], kept[val_labels]
        stop_by = (features[val_rows], position[val_labels[val_rows]])
        if not val_rows.any():  # Then there is nothing to stop by but what is trained on.
            stop_by = (train.vectors[rows], position[labels[rows]])
        taught = (train.vectors[rows], position[labels[rows]])
        head = train_head(*taught, *stop_by, classes=int(kept.sum()), seed=seed, watch=watch).head
        return _spread(head, kept)

    retrain: Retrain = train_again
    if choice.loss < min(training.val_loss):
        head = ridge[STRENGTHS.index(choice.strength)].scaled(1 / choice.temperature)
        name, training = _ridge(head, choice)
        retrain = _ridge_again(train.vectors, labels, choice)
    familiarity = fit_familiarity(train.vectors, labels, classes)
    return name, training, [_HeldOut(training.head, familiarity, val)], retrain


def _fit_across(
    tree: ClassTree, train: LabelledPhotos
) -> tuple[str, HeadTraining, list[_HeldOut], Retrain]:
    """Ridge from all photos, and beside it the heads of the folds."""
    train = train.by_listing()
    labels, bounds = _positions(tree, train.labels), _bounds(train.listing_ids)
    folds = np.repeat(deal_folds(labels[bounds[:-1]]), np.diff(bounds))
    vectors, classes = train.vectors, len(tree.classes)
    fit = cross_fit(vectors, labels, folds, classes=classes)
    held_out = []
    for fold, head in enumerate(fit.fold_heads):
        others, own = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if len(own) and len(others):
            familiarity = fit_familiarity(vectors[others], labels[others], classes)
            held_out.append(_HeldOut(head, familiarity, train.some(own)))
    return *_ridge(fit.head, fit.choice), held_out, _ridge_again(vectors, labels, fit.choice)


def _ridge(head: LinearHead, choice: Choice) -> tuple[str, HeadTraining]:
    return f"ridge, penalty {choice.strength:g}", HeadTraining(head, [], [choice.loss], 0)


def _ridge_again(
    vectors: npt.NDArray[np.float16], labels: npt.NDArray[np.int64], choice: Choice
) -> Retrain:
    def retrain(kept: npt.NDArray[np.bool_]) -> LinearHead:
        rows, position = kept[labels], np.cumsum(kept) - 1
        taught = vectors[rows], position[labels[rows]]
        (head,) = ridge_heads(*taught, classes=int(kept.sum()), strengths=[choice.strength])
        return _spread(head.scaled(1 / choice.temperature), kept)

    return retrain


def _spread(head: LinearHead, kept: npt.NDArray[np.bool_]) -> LinearHead:
    """The head of the classes kept, as one of all classes: the others have the bias -inf."""
    weight = np.zeros((len(kept), head.weight.shape[1]), np.float32)
    bias = np.full(len(kept), -np.inf, np.float32)
    weight[kept], bias[kept] = head.weight, head.bias
    return LinearHead(weight, bias)


def _some_listings(
    tree: ClassTree, photos: LabelledPhotos
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Features and classes of at most `_LISTINGS_AT_ONCE` listings, evenly chosen."""
    photos = photos.by_listing()
    bounds = _bounds(photos.listing_ids)
    chosen = np.unique(np.linspace(0, len(bounds) - 2, _LISTINGS_AT_ONCE).astype(np.int64))
    rows = np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in chosen])
    fused = fuse_photos(photos.vectors[rows], np.diff(bounds)[chosen])
    return fused, _positions(tree, [photos.labels[first] for first in bounds[chosen]])


def _positions(tree: ClassTree, labels: Sequence[str]) -> npt.NDArray[np.int64]:
    return np.array([tree.position[label] for label in labels], np.int64)


def _bounds(listing_ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Where the photos of each listing begin, of photos grouped by listing, and the end."""
    new = (i for i, x in enumerate(listing_ids) if i == 0 or x != listing_ids[i - 1])
    return np.array([*new, len(listing_ids)], np.int64)


def _in_parts(photos: LabelledPhotos) -> Iterator[LabelledPhotos]:
    """Photos grouped by listing, some thousand listings at a time."""
    bounds = _bounds(photos.listing_ids)
    for first in range(0, len(bounds) - 1, _LISTINGS_AT_ONCE):
        last = min(first + _LISTINGS_AT_ONCE, len(bounds) - 1)
        rows = slice(bounds[first], bounds[last])
        yield LabelledPhotos(photos.listing_ids[rows], photos.labels[rows], photos.vectors[rows])
