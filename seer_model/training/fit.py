"""From labelled photos to a bundle: train the head, calibrate it, measure it."""

from collections.abc import Sequence
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
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.scoring import LISTINGS, fuse_photos, score_listings
from seer_model.evaluation.metrics import Quality, measure_quality
from seer_model.evaluation.outcomes import Outcomes, compare_with_labels
from seer_model.training.head import HeadTraining, train_head
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
        return LabelledPhotos(
            [self.listing_ids[i] for i in order],
            [self.labels[i] for i in order],
            self.vectors[order],
        )


@dataclass(frozen=True)
class FittedBundle:
    """A new bundle, its head's training, and the outcomes and figures of the listings of `val`.

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
    seed: int,
    origin: dict[str, Any],
    watch: Watch = unwatched,
) -> FittedBundle:
    """Train a head on `train`, with early stopping and calibration on `val`.

    The head is trained on photos. Temperature and thresholds are chosen on listings, because
    listings are scored.

    Args:
        backbone: The backbone that embedded the photos.
        taxonomy: The labels' taxonomy.
        train: Training photos.
        val: Photos of other listings.
        target_precision: Share of assigned listings that should be right.
        seed: Seed of the order of photos.
        origin: Facts about the data, recorded in the bundle.
        watch: Shows the training's progress.

    Raises:
        DataContractError: A label is not in the taxonomy, there are fewer than two classes, or no
            photo of `val` has a class.
    """
    tree = ClassTree(taxonomy, train.labels)
    ClassTree(taxonomy, [*train.labels, *val.labels])
    val = val.by_listing()
    known = np.array([label in tree.position for label in val.labels], np.bool_)
    if not known.any():
        raise DataContractError("no photo of the split val has a category of the split train")
    training = train_head(
        train.vectors,
        _positions(tree, train.labels),
        val.vectors[known],
        _positions(tree, [label for label in val.labels if label in tree.position]),
        classes=len(tree.classes),
        seed=seed,
        watch=watch,
    )
    bounds = _bounds(val.listing_ids)
    labels = [val.labels[first] for first in bounds[:-1]]
    parts = [
        bounds[i : i + _LISTINGS_AT_ONCE + 1] for i in range(0, len(labels), _LISTINGS_AT_ONCE)
    ]
    logits = np.concatenate([training.head.logits(_fused(val, part)) for part in parts])
    sample = CalibrationSample(logits, labels)
    calibration = calibrate(sample, tree, target_precision)
    shortfall = explain_no_threshold(sample, tree, calibration)
    bundle = Bundle(backbone, training.head, tree, calibration, origin)
    scores = [score_listings(bundle, _listings(val, part)) for part in parts]
    outcomes = compare_with_labels(tree, labels, pa.Table.from_batches(scores))
    quality = measure_quality(outcomes)
    bundle = replace(bundle, training={**origin, "val": quality.figures()})
    return FittedBundle(bundle, training, outcomes, quality, shortfall)


def _positions(tree: ClassTree, labels: Sequence[str]) -> npt.NDArray[np.int64]:
    return np.array([tree.position[label] for label in labels], np.int64)


def _bounds(listing_ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Where the photos of each listing begin, of photos grouped by listing, and the end."""
    new = (i for i, x in enumerate(listing_ids) if i == 0 or x != listing_ids[i - 1])
    return np.array([*new, len(listing_ids)], np.int64)


def _fused(photos: LabelledPhotos, bounds: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    return fuse_photos(photos.vectors[bounds[0] : bounds[-1]], np.diff(bounds))


def _listings(photos: LabelledPhotos, bounds: npt.NDArray[np.int64]) -> pa.RecordBatch:
    rows = [
        {
            "listing_id": photos.listing_ids[first],
            "photos": [
                {"image_index": i, "vector": vector.tobytes(), "reject_reason": None}
                for i, vector in enumerate(photos.vectors[first:last])
            ],
        }
        for first, last in pairwise(bounds)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=LISTINGS)
