"""From the embeddings of listings to decisions, the one scoring path.

The job, the MLflow model, the pandas UDF and the evaluation all call `score_listings`, so they
cannot score differently.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.categories import CATEGORIES, Decision, ReviewReason
from schemas.rejects import RejectReason, listing_reason
from seer_model.categorizer.bundle import Bundle
from seer_model.categorizer.thresholds import class_probabilities

__all__ = ["LISTINGS", "SCORES", "fuse_photos", "score_listings"]

CANDIDATES = 5
_NONE = -1

LISTINGS: pa.Schema = pa.schema(
    [
        pa.field("listing_id", pa.string(), nullable=False),
        pa.field(
            "photos",
            pa.list_(
                pa.struct(
                    [
                        ("image_index", pa.int32()),
                        ("vector", pa.binary()),
                        ("reject_reason", pa.string()),
                    ]
                )
            ),
        ),
    ]
)
"""Input: a row a listing; each photo has a vector (little-endian float16) or a reject reason."""

SCORES: pa.Schema = pa.schema(
    [
        CATEGORIES.field(name)
        for name in (
            "listing_id",
            "decision",
            "category_id",
            "category_path",
            "score",
            "candidates",
            "review_reason",
            "reject_reason",
            "images_used",
            "images_rejected",
            "image_rejects",
        )
    ]
)
"""Output: the columns of the categories table that depend on photos and model alone."""


class _Photos(NamedTuple):
    listings: int
    row: npt.NDArray[np.int64]
    used: npt.NDArray[np.bool_]
    vectors: npt.NDArray[np.float16]
    image_index: list[int]
    reason: list[str | None]


def score_listings(bundle: Bundle, listings: pa.RecordBatch) -> pa.RecordBatch:
    """Categorize listings from the embeddings of their photos.

    The embeddings of a listing's usable photos are averaged, which for a linear head is the
    geometric mean of the photos' posteriors. The deepest level decides whose best category
    reaches the level's threshold and is familiar enough, see `Familiarity`.

    A row depends on the listing's own photos alone, neither on their order nor on the other
    listings: float16 vectors are summed in float64, which is exact for up to 4,000 photos.

    Args:
        bundle: The model.
        listings: Of schema `LISTINGS`; a reject without `image_index` gets -1.

    Returns:
        Of schema `SCORES`, one row a listing, in order.
    """
    photos = _flatten(listings.column("photos"), bundle.backbone.width)
    used_by_listing = np.bincount(photos.row[photos.used], minlength=photos.listings)
    scored = np.flatnonzero(used_by_listing > 0)
    columns = _decide(
        bundle, fuse_photos(photos.vectors, used_by_listing[scored]), scored, photos.listings
    )
    columns |= {
        name: pa.array(values, SCORES.field(name).type)
        for name, values in _rejects(photos, used_by_listing).items()
    }
    columns["listing_id"] = listings.column("listing_id").cast(pa.string())
    return pa.RecordBatch.from_arrays([columns[name] for name in SCORES.names], schema=SCORES)


def _flatten(photos: pa.ListArray, width: int) -> _Photos:
    lengths = pc.fill_null(pc.list_value_length(photos), 0).to_numpy(zero_copy_only=False)
    values = photos.flatten()
    vectors = pc.struct_field(values, "vector")
    data = b"".join(vectors.drop_null().to_pylist())
    return _Photos(
        listings=len(photos),
        row=np.repeat(np.arange(len(photos)), lengths),
        used=vectors.is_valid().to_numpy(zero_copy_only=False),
        vectors=np.frombuffer(data, "<f2").reshape(-1, width),
        image_index=pc.fill_null(pc.struct_field(values, "image_index"), -1).to_pylist(),
        reason=pc.struct_field(values, "reject_reason").to_pylist(),
    )


def fuse_photos(
    vectors: npt.NDArray[np.float16], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Average the embeddings of each listing's photos.

    Args:
        vectors: float16, (photos, width), grouped by listing.
        counts: int64, (listings,), photos of each listing, at least one.

    Returns:
        float32, (listings, width).
    """
    if len(counts) == 0:
        return np.empty((0, vectors.shape[1]), np.float32)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    sums = np.add.reduceat(vectors.astype(np.float64), starts, axis=0)
    mean: npt.NDArray[np.float32] = (sums / counts[:, None]).astype(np.float32)
    return mean


def _decide(
    bundle: Bundle,
    features: npt.NDArray[np.float32],
    scored: npt.NDArray[np.int64],
    listings: int,
) -> dict[str, pa.Array]:
    """The columns that depend on features: those of `scored` listings, null for the others."""
    tree, calibration = bundle.tree, bundle.calibration
    probabilities = class_probabilities(bundle.head.logits(features), calibration.temperature)
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :CANDIDATES]
    top_scores = np.take_along_axis(probabilities, top, axis=1)
    score = top_scores[:, 0].copy()
    chosen = np.full(len(scored), _NONE)
    best_of_levels = tree.best(probabilities)
    familiar = np.ones((len(scored), len(tree.levels)), np.bool_)
    if bundle.familiarity is not None:
        familiar = bundle.familiarity.is_familiar(features, tree, best_of_levels)
    unfamiliar = ~familiar.any(axis=1)
    levels = zip(tree.levels, best_of_levels, calibration.thresholds, familiar.T, strict=True)
    first = 0
    for level, best, threshold, near in levels:
        if threshold is not None:
            sure = best.score >= threshold
            unfamiliar |= sure & ~near
            # A deeper level that passes overwrites the one above.
            passed = sure & near
            chosen[passed] = first + best.position[passed]
            score[passed] = best.score[passed]
        first += len(level.categories)
    decided = np.where(chosen == _NONE, Decision.NEEDS_REVIEW.value, Decision.ASSIGNED.value)
    decision = np.full(listings, Decision.REJECTED.value, object)
    decision[scored] = decided
    reason = np.where(unfamiliar, ReviewReason.UNFAMILIAR.value, ReviewReason.UNSURE.value)
    review_reason = np.full(listings, None, object)
    reviewed = chosen == _NONE
    review_reason[scored[reviewed]] = reason[reviewed]
    category = _indices(chosen, scored, listings)
    position = _indices(np.arange(len(scored)), scored, listings)
    return {
        "decision": pa.array(decision, pa.string()),
        "category_id": pa.array(tree.categories, pa.string()).take(category),
        "category_path": pa.array(tree.paths, pa.list_(pa.string())).take(category),
        "score": pa.array(score.astype(np.float32)).take(position),
        "review_reason": pa.array(review_reason, pa.string()),
        "candidates": _candidates(bundle, top, top_scores, scored, listings),
    }


def _indices(
    values: npt.NDArray[np.int64], scored: npt.NDArray[np.int64], listings: int
) -> pa.Array:
    """Spread indices of scored listings over all listings; null for others and for negatives."""
    spread = np.full(listings, -1)
    spread[scored] = values
    return pa.array(spread, mask=spread < 0)


def _candidates(
    bundle: Bundle,
    top: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    scored: npt.NDArray[np.int64],
    listings: int,
) -> pa.Array:
    counts = np.zeros(listings, np.int32)
    counts[scored] = top.shape[1]
    ids = pa.array(bundle.tree.classes, pa.string()).take(pa.array(top.ravel()))
    kind = SCORES.field("candidates").type
    found = pa.StructArray.from_arrays(
        [ids, pa.array(scores.ravel().astype(np.float32))], fields=list(kind.value_type)
    )
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), found, type=kind)


def _rejects(photos: _Photos, used: npt.NDArray[np.int64]) -> dict[str, Any]:
    rejects: list[dict[int, str]] = [{} for _ in range(photos.listings)]
    reasons: list[list[str]] = [[] for _ in range(photos.listings)]
    by_index = sorted(
        np.flatnonzero(~photos.used),
        key=lambda i: (photos.row[i], photos.image_index[i], photos.reason[i] or ""),
    )
    for i in by_index:
        reason = photos.reason[i] or RejectReason.UNREADABLE.value
        rejects[photos.row[i]].setdefault(photos.image_index[i], reason)
        reasons[photos.row[i]].append(reason)
    return {
        "reject_reason": [
            None if count else listing_reason(names or [RejectReason.NO_PHOTO.value])
            for count, names in zip(used, reasons, strict=True)
        ],
        "images_used": used.astype(np.int32),
        "images_rejected": np.array([len(names) for names in reasons], np.int32),
        "image_rejects": [list(found.items()) or None for found in rejects],
    }
