"""From labelled photos to a bundle: train the head, calibrate it, measure it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
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
    Calibration,
    CalibrationSample,
    Shortfall,
    calibrate,
    explain_no_threshold,
)
from seer_model.categorizer.familiarity import Familiarity
from seer_model.categorizer.head import LinearHead
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.scoring import LISTINGS, fuse_photos, score_listings
from seer_model.evaluation.groups import rows_by_slice, worst_groups
from seer_model.evaluation.metrics import Quality, measure_quality
from seer_model.evaluation.outcomes import Outcomes, compare_with_labels
from seer_model.training.balance import Groups, group_photos
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
        slices: The listing's slices, maps of strings, null where it has none; None if none has any.
    """

    listing_ids: Sequence[str]
    labels: Sequence[str]
    vectors: npt.NDArray[np.float16]
    slices: pa.Array | None = None

    def by_listing(self) -> "LabelledPhotos":
        """The same photos, grouped by listing."""
        order = sorted(range(len(self.labels)), key=lambda i: self.listing_ids[i])
        return self.some(np.array(order, np.int64))

    def some(self, rows: npt.NDArray[np.int64]) -> "LabelledPhotos":
        """Some of the photos, in this order."""
        return LabelledPhotos(
            [self.listing_ids[i] for i in rows],
            [self.labels[i] for i in rows],
            self.vectors[rows],
            None if self.slices is None else self.slices.take(pa.array(rows)),
        )


@dataclass(frozen=True)
class FittedBundle:
    """A new bundle, its head's training, and what it makes of the listings it was calibrated on.

    `shortfall` says why the bundle can assign nothing; None if it can. `balanced` has the training
    photos by group, if the groups of a slice were balanced.
    """

    bundle: Bundle
    training: HeadTraining
    outcomes: Outcomes
    quality: Quality
    shortfall: Shortfall | None
    balanced: dict[str, int] | None


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
    balance: str | None = None,
    watch: Watch = unwatched,
) -> FittedBundle:
    """Train a head and calibrate it on listings that it was not trained on.

    With `val`: logistic regression with early stopping on `val`, or ridge regression, whichever
    has the better log-likelihood on `val`, and calibration on `val`. Without: ridge regression on
    all of `train`, calibrated by cross-fitting, so that few labels serve for both. The bundle's
    `training` says which (`head`, `calibrated_on`).

    With `balance` the head is a logistic regression, which alone can balance groups, and takes
    `val` to stop by.

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
        balance: Name of the slice whose groups should fare alike, see `group_photos`.
        watch: Shows the training's progress.

    Raises:
        DataContractError: A label is not in the taxonomy, there are fewer than two classes, or no
            photo of `val` has a class; or the slice to balance makes no two groups of `train`, or
            there is no `val` with it.
    """
    tree = ClassTree(taxonomy, train.labels)
    ClassTree(taxonomy, [*train.labels, *val.labels])
    groups = None if balance is None else group_photos(train.slices, balance)
    if len(val.labels):
        fit, calibrated_on = _fit_with_val(tree, train, val, groups, seed, watch), "val"
    elif groups is None:
        fit, calibrated_on = _fit_across(tree, train), "cross-fitting of train"
    else:
        raise DataContractError(
            f"--balance {balance}: the training stops by the split val, of which no photo can be "
            "read: put more labelled listings into it"
        )
    parts = [one._replace(photos=part) for one in fit.held_out for part in _in_parts(one.photos)]
    calibration, limits, shortfall = _calibrate(
        tree, train, fit, parts, target_precision, unseen_share, seed
    )
    familiarity = fit_familiarity(train.vectors, _positions(tree, train.labels), len(tree.classes))
    familiarity = replace(familiarity, limits=limits)
    bundle = Bundle(backbone, fit.training.head, tree, calibration, familiarity=familiarity)
    scores = [score_listings(part.of(bundle), part.listings()) for part in parts]
    labels = [label for part in parts for label in part.labels()]
    outcomes = compare_with_labels(tree, labels, pa.Table.from_batches(scores))
    quality = measure_quality(outcomes)
    training = {
        **origin,
        "head": fit.name,
        "calibrated_on": calibrated_on,
        "val": quality.figures(),
        **_worst_groups(parts, outcomes),
    }
    bundle = replace(bundle, training=training)
    balanced = groups and groups.photos
    return FittedBundle(bundle, fit.training, outcomes, quality, shortfall, balanced)


Retrain = Callable[[npt.NDArray[np.bool_]], LinearHead]
"""Trains the head on some classes alone, (classes,); the others have the bias -inf."""

_Photos = tuple[npt.NDArray[np.float16], npt.NDArray[np.int64]]
"""Embeddings, (photos, width), and the position of each photo's class."""


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

    def slices(self) -> list[dict[str, str]]:
        firsts = pa.array(_bounds(self.photos.listing_ids)[:-1])
        slices = self.photos.slices
        return [] if slices is None else [dict(s or ()) for s in slices.take(firsts).to_pylist()]

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


class _Fit(NamedTuple):
    """A head of a kind, what it was not fitted on, and how to train it again without classes."""

    name: str
    training: HeadTraining
    held_out: list[_HeldOut]
    retrain: Retrain


def _fit_with_val(
    tree: ClassTree,
    train: LabelledPhotos,
    val: LabelledPhotos,
    groups: Groups | None,
    seed: int,
    watch: Watch,
) -> _Fit:
    """Logistic regression or, unless groups are balanced, ridge if it has the better loss."""
    val, classes = val.by_listing(), len(tree.classes)
    known = np.array([label in tree.position for label in val.labels], np.bool_)
    if not known.any():
        raise DataContractError("no photo of the split val has a category of the split train")
    labels = _positions(tree, train.labels)
    val_labels = _positions(tree, [label for label in val.labels if label in tree.position])
    taught, stop_by = (train.vectors, labels), (val.vectors[known], val_labels)
    numbers = groups and groups.numbers
    training = train_head(
        *taught, *stop_by, classes=classes, groups=numbers, seed=seed, watch=watch
    )
    name, retrain = "logistic regression", _logistic_again(taught, stop_by, seed, watch)
    if groups is None:
        ridge = ridge_heads(*taught, classes=classes, strengths=STRENGTHS)
        choice = choose_strength([HeldOutPhotos(ridge, *stop_by)])
        if choice.loss < min(training.val_loss):
            head = ridge[STRENGTHS.index(choice.strength)].scaled(1 / choice.temperature)
            name, training = _ridge(head, choice)
            retrain = _ridge_again(taught, choice)
    familiarity = fit_familiarity(train.vectors, labels, classes)
    return _Fit(name, training, [_HeldOut(training.head, familiarity, val)], retrain)


def _fit_across(tree: ClassTree, train: LabelledPhotos) -> _Fit:
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
    name, training = _ridge(fit.head, fit.choice)
    return _Fit(name, training, held_out, _ridge_again((vectors, labels), fit.choice))


def _ridge(head: LinearHead, choice: Choice) -> tuple[str, HeadTraining]:
    return f"ridge, penalty {choice.strength:g}", HeadTraining(head, [], [choice.loss], 0)


def _logistic_again(taught: _Photos, stop_by: _Photos, seed: int, watch: Watch) -> Retrain:
    """Groups are not balanced: these heads only show what becomes of goods never seen."""

    def retrain(kept: npt.NDArray[np.bool_]) -> LinearHead:
        some, stop_by_some = _of_classes(taught, kept), _of_classes(stop_by, kept)
        if not len(stop_by_some[1]):  # Then there is nothing to stop by but what is trained on.
            stop_by_some = some
        classes = int(kept.sum())
        training = train_head(*some, *stop_by_some, classes=classes, seed=seed, watch=watch)
        return _spread(training.head, kept)

    return retrain


def _ridge_again(taught: _Photos, choice: Choice) -> Retrain:
    def retrain(kept: npt.NDArray[np.bool_]) -> LinearHead:
        some, classes = _of_classes(taught, kept), int(kept.sum())
        (head,) = ridge_heads(*some, classes=classes, strengths=[choice.strength])
        return _spread(head.scaled(1 / choice.temperature), kept)

    return retrain


def _of_classes(photos: _Photos, kept: npt.NDArray[np.bool_]) -> _Photos:
    """The photos of the classes kept, which are numbered anew."""
    vectors, labels = photos
    rows, position = kept[labels], np.cumsum(kept) - 1
    return vectors[rows], position[labels[rows]]


def _spread(head: LinearHead, kept: npt.NDArray[np.bool_]) -> LinearHead:
    """The head of the classes kept, as one of all classes: the others have the bias -inf."""
    weight = np.zeros((len(kept), head.weight.shape[1]), np.float32)
    bias = np.full(len(kept), -np.inf, np.float32)
    weight[kept], bias[kept] = head.weight, head.bias
    return LinearHead(weight, bias)


def _calibrate(
    tree: ClassTree,
    train: LabelledPhotos,
    fit: _Fit,
    parts: Sequence[_HeldOut],
    target_precision: float,
    unseen_share: float,
    seed: int,
) -> tuple[Calibration, npt.NDArray[np.float32], Shortfall | None]:
    """Temperature and thresholds, the limits of familiarity, and why nothing can be assigned."""
    fused = [part.fused() for part in parts]
    logits = [p.head.logits(features) for p, features in zip(parts, fused, strict=True)]
    distances = [
        p.familiarity.distances(features) for p, features in zip(parts, fused, strict=True)
    ]
    labels = [label for part in parts for label in part.labels()]
    far, sample = np.concatenate(distances), CalibrationSample(np.concatenate(logits), labels)
    limits = choose_limits(far, sample, tree)
    known = add_unseen(sample, far, limits, tree)
    new = None
    if unseen_share:
        vectors, positions = train.vectors, _positions(tree, train.labels)
        listings = _some_listings(tree, train)
        new = score_held_out(tree, vectors, positions, *listings, fit.retrain, seed)
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
    return calibration, limits, shortfall


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


def _worst_groups(parts: Sequence[_HeldOut], outcomes: Outcomes) -> dict[str, Any]:
    """The worst group of every slice, for the card; the number of those that are not judged."""
    slices = [named for part in parts for named in part.slices()]
    if not slices:
        return {}
    found = worst_groups(rows_by_slice(slices), outcomes.hit)
    return {
        "worst_groups": [
            {**asdict(group), "top1_interval": [*group.top1_interval], "small": len(group.small)}
            for group in found
        ]
    }


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
        slices = None if photos.slices is None else photos.slices[rows]
        yield LabelledPhotos(
            photos.listing_ids[rows], photos.labels[rows], photos.vectors[rows], slices
        )
