"""From labelled photos to a bundle: train the head, calibrate it, measure it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

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
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.scoring import fuse_photos, score_listings
from seer_model.categorizer.thresholds import Calibration
from seer_model.evaluation.groups import rows_by_slice, worst_groups
from seer_model.evaluation.metrics import Quality, measure_quality
from seer_model.evaluation.outcomes import Outcomes, compare_with_labels
from seer_model.training.balance import group_photos
from seer_model.training.candidates import HeadFit, HeldOut, fit_across, fit_with_val
from seer_model.training.head import HeadTraining
from seer_model.training.labelled import (
    LISTINGS_AT_ONCE,
    LabelledPhotos,
    class_positions,
    in_parts,
    listing_bounds,
)
from seer_model.training.unseen import (
    add_unseen,
    choose_limits,
    fit_familiarity,
    score_held_out,
)
from seer_model.training.watch import Watch, unwatched

__all__ = ["FittedBundle", "fit_bundle"]


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
    fold_by: str | None = None,
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
        fold_by: Without `val`: name of the slice that keeps listings in one fold, see
            `folds_by_slice`; None: their looks do, see `folds_by_looks`.
        watch: Shows the training's progress.

    Raises:
        DataContractError: A label is not in the taxonomy, there are fewer than two classes, or no
            photo of `val` has a class; or the slice to balance makes no two groups of `train`, or
            there is no `val` with it; or the slice to fold by has no two values.
    """
    tree = ClassTree(taxonomy, train.labels)
    ClassTree(taxonomy, [*train.labels, *val.labels])
    groups = None if balance is None else group_photos(train.slices, balance)
    if len(val.labels):
        fit, calibrated_on = fit_with_val(tree, train, val, groups, seed, watch), "val"
    elif groups is None:
        fit = fit_across(tree, train, fold_by)
        calibrated_on = f"cross-fitting of train, folds by {fold_by or 'looks'}"
    else:
        raise DataContractError(
            f"--balance {balance}: the training stops by the split val, of which no photo can be "
            "read: put more labelled listings into it"
        )
    parts = [one._replace(photos=part) for one in fit.held_out for part in in_parts(one.photos)]
    calibration, limits, shortfall = _calibrate(
        tree, train, fit, parts, target_precision, unseen_share, seed
    )
    taught = class_positions(tree, train.labels)
    familiarity = fit_familiarity(train.vectors, taught, len(tree.classes))
    familiarity = replace(familiarity, limits=limits)
    bundle = Bundle(backbone, fit.training.head, tree, calibration, familiarity=familiarity)
    scores = [score_listings(part.of(bundle), part.photos.listings()) for part in parts]
    labels = [label for part in parts for label in part.photos.listing_labels()]
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


def _calibrate(
    tree: ClassTree,
    train: LabelledPhotos,
    fit: HeadFit,
    parts: Sequence[HeldOut],
    target_precision: float,
    unseen_share: float,
    seed: int,
) -> tuple[Calibration, npt.NDArray[np.float32], Shortfall | None]:
    """Temperature and thresholds, the limits of familiarity, and why nothing can be assigned."""
    fused = [part.photos.fused() for part in parts]
    logits = [p.head.logits(features) for p, features in zip(parts, fused, strict=True)]
    distances = [
        p.familiarity.distances(features) for p, features in zip(parts, fused, strict=True)
    ]
    labels = [label for part in parts for label in part.photos.listing_labels()]
    far, sample = np.concatenate(distances), CalibrationSample(np.concatenate(logits), labels)
    limits = choose_limits(far, sample, tree)
    known = add_unseen(sample, far, limits, tree)
    new = None
    if unseen_share:
        vectors, positions = train.vectors, class_positions(tree, train.labels)
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
    """Features and classes of at most `LISTINGS_AT_ONCE` listings, evenly chosen."""
    photos = photos.by_listing()
    bounds = listing_bounds(photos.listing_ids)
    chosen = np.unique(np.linspace(0, len(bounds) - 2, LISTINGS_AT_ONCE).astype(np.int64))
    rows = np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in chosen])
    fused = fuse_photos(photos.vectors[rows], np.diff(bounds)[chosen])
    return fused, class_positions(tree, [photos.labels[first] for first in bounds[chosen]])


def _worst_groups(parts: Sequence[HeldOut], outcomes: Outcomes) -> dict[str, Any]:
    """The worst group of every slice, for the card; the number of those that are not judged."""
    slices = [named for part in parts for named in part.photos.listing_slices()]
    if not slices:
        return {}
    found = worst_groups(rows_by_slice(slices), outcomes.hit)
    return {
        "worst_groups": [
            {**asdict(group), "top1_interval": [*group.top1_interval], "small": len(group.small)}
            for group in found
        ]
    }
