"""From labelled photos to a bundle: train the head, calibrate it, measure it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import DataContractError
from schemas.taxonomy import Taxonomy
from seer_model.backbones.backbone import Backbone
from seer_model.categorizer.bundle import Bundle
from seer_model.categorizer.calibration import Shortfall, calibrate, explain_no_threshold
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.scoring import LISTINGS, fuse_photos, score_listings
from seer_model.evaluation.groups import SMALL_SLICE, rows_by_slice, worst_groups
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
        slices: The listing's slices, maps of strings, null where it has none; None if none has any.
    """

    listing_ids: Sequence[str]
    labels: Sequence[str]
    vectors: npt.NDArray[np.float16]
    slices: pa.Array | None = None

    def by_listing(self) -> "LabelledPhotos":
        """The same photos, grouped by listing."""
        order = sorted(range(len(self.labels)), key=lambda i: self.listing_ids[i])
        return LabelledPhotos(
            [self.listing_ids[i] for i in order],
            [self.labels[i] for i in order],
            self.vectors[order],
            None if self.slices is None else self.slices.take(order),
        )


@dataclass(frozen=True)
class FittedBundle:
    """A new bundle, its head's training, and the outcomes and figures of the listings of `val`.

    `shortfall` says why the bundle can assign nothing; None if it can. `balanced` has the training
    photos by group, if the groups of a slice were balanced.
    """

    bundle: Bundle
    training: HeadTraining
    outcomes: Outcomes
    quality: Quality
    shortfall: Shortfall | None
    balanced: dict[str, int] | None = None


def fit_bundle(
    backbone: Backbone,
    taxonomy: Taxonomy,
    train: LabelledPhotos,
    val: LabelledPhotos,
    *,
    target_precision: float,
    seed: int,
    origin: dict[str, Any],
    balance: str | None = None,
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
        balance: Name of the slice whose groups should fare alike, see `train_head`. Listings
            without it are a group, and those of groups of fewer than `SMALL_SLICE` photos another.
        watch: Shows the training's progress.

    Raises:
        DataContractError: A label is not in the taxonomy, there are fewer than two classes, or no
            photo of `val` has a class, or the slice to balance makes no two groups of `train`.
    """
    tree = ClassTree(taxonomy, train.labels)
    ClassTree(taxonomy, [*train.labels, *val.labels])
    val = val.by_listing()
    known = np.array([label in tree.position for label in val.labels], np.bool_)
    if not known.any():
        raise DataContractError("no photo of the split val has a category of the split train")
    groups = None if balance is None else _groups(train, balance)
    training = train_head(
        train.vectors,
        _positions(tree, train.labels),
        val.vectors[known],
        _positions(tree, [label for label in val.labels if label in tree.position]),
        classes=len(tree.classes),
        groups=groups and groups.numbers,
        seed=seed,
        watch=watch,
    )
    bounds = _bounds(val.listing_ids)
    labels = [val.labels[first] for first in bounds[:-1]]
    parts = [
        bounds[i : i + _LISTINGS_AT_ONCE + 1] for i in range(0, len(labels), _LISTINGS_AT_ONCE)
    ]
    logits = np.concatenate([training.head.logits(_fused(val, part)) for part in parts])
    calibration = calibrate(logits, labels, tree, target_precision)
    shortfall = explain_no_threshold(logits, labels, tree, calibration)
    bundle = Bundle(backbone, training.head, tree, calibration, origin)
    scores = [score_listings(bundle, _listings(val, part)) for part in parts]
    outcomes = compare_with_labels(tree, labels, pa.Table.from_batches(scores))
    quality = measure_quality(outcomes)
    worst = _worst_groups(val, bounds[:-1], outcomes)
    bundle = replace(bundle, training={**origin, "val": quality.figures(), **worst})
    balanced = groups and groups.photos
    return FittedBundle(bundle, training, outcomes, quality, shortfall, balanced)


class _Groups(NamedTuple):
    """The group of each photo, int64, (photos,), and the number of photos of each, by name."""

    numbers: npt.NDArray[np.int64]
    photos: dict[str, int]


def _groups(photos: LabelledPhotos, name: str) -> _Groups:
    slices = photos.slices
    values = pa.nulls(len(photos.labels), pa.string())
    if slices is not None:
        values = pc.map_lookup(slices, pa.scalar(name), "first")
    counts = Counter(values.to_pylist())
    without = counts.pop(None, 0)
    large = sorted(value for value, count in counts.items() if count >= SMALL_SLICE)
    small = sum(counts.values()) - sum(counts[value] for value in large)
    if len(large) + bool(small) + bool(without) < 2:
        raise DataContractError(
            f"--balance {name}: the labelled photos of train make no two groups by this slice; "
            f"they have {_names(slices)}"
        )
    of_value = {value: number for number, value in enumerate(large)}
    of_value |= {value: len(large) for value in counts if value not in of_value}
    numbers = [of_value.get(value, len(large) + bool(small)) for value in values.to_pylist()]
    named = {value: counts[value] for value in large}
    others = {f"(fewer than {SMALL_SLICE})": small, "(without)": without}
    return _Groups(np.array(numbers, np.int64), named | {k: n for k, n in others.items() if n})


def _names(slices: pa.Array | None) -> str:
    names = [] if slices is None else pc.unique(slices.keys).to_pylist()
    return f"the slices {', '.join(sorted(names))}" if names else "no slices"


def _worst_groups(
    val: LabelledPhotos, firsts: npt.NDArray[np.int64], outcomes: Outcomes
) -> dict[str, Any]:
    """The worst group of every slice, for the card; the number of those that are not judged."""
    if val.slices is None:
        return {}
    slices = [dict(row or ()) for row in val.slices.take(firsts).to_pylist()]
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
