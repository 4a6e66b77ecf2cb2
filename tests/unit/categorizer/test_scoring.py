"""Scoring, against a reference that scores one listing at a time."""

import math
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.categories import CATEGORIES, Decision, ReviewReason, check_categories
from schemas.rejects import RejectReason
from seer_model.categorizer.bundle import Bundle
from seer_model.categorizer.scoring import LISTINGS, SCORES, fuse_photos, score_listings
from seer_model.categorizer.thresholds import Calibration, class_probabilities

Photo = dict[str, Any]
Listing = dict[str, Any]

REASONS = [reason.value for reason in RejectReason]


def photo(rng: np.random.Generator, index: int | None, width: int) -> Photo:
    vector = rng.standard_normal(width).astype("<f2")
    return {"image_index": index, "vector": vector.tobytes(), "reject_reason": None}


def reject(index: int | None, reason: str | None) -> Photo:
    return {"image_index": index, "vector": None, "reject_reason": reason}


def batch_of(listings: list[Listing]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(listings, schema=LISTINGS)


def scored(bundle: Bundle, listings: list[Listing]) -> list[dict[str, Any]]:
    return score_listings(bundle, batch_of(listings)).to_pylist()


@pytest.fixture(scope="module")
def listings(undecided_bundle: Bundle) -> list[Listing]:
    """120 listings of 0 to 6 photos, some of them rejected, indexes missing and repeated."""
    rng = np.random.default_rng(11)
    width = undecided_bundle.backbone.width
    found = []
    for number in range(120):
        photos = []
        for position in range(rng.integers(0, 7)):
            index = [position, position, 0, None][rng.integers(0, 4)]
            if rng.random() < 0.35:
                photos.append(reject(index, [*REASONS, None][rng.integers(0, 11)]))
            else:
                photos.append(photo(rng, index, width))
        found.append({"listing_id": f"L{number}", "photos": photos})
    return found


# The reference


def reference(bundle: Bundle, listing: Listing) -> dict[str, Any]:
    photos = listing["photos"] or []
    used = [np.frombuffer(p["vector"], "<f2").astype(float) for p in photos if p["vector"]]
    rejects = [
        (-1 if p["image_index"] is None else p["image_index"], p["reject_reason"] or "")
        for p in photos
        if p["vector"] is None
    ]
    reasons = [(index, reason or "unreadable") for index, reason in sorted(rejects)]
    row: dict[str, Any] = {
        "listing_id": listing["listing_id"],
        "decision": "rejected",
        "category_id": None,
        "category_path": None,
        "score": None,
        "candidates": [],
        "review_reason": None,
        "reject_reason": None,
        "images_used": len(used),
        "images_rejected": len(rejects),
        "image_rejects": list(dict(reversed(reasons)).items())[::-1] or None,
    }
    if not used:
        counts = Counter(reason for _, reason in reasons)
        row["reject_reason"] = counts.most_common(1)[0][0] if counts else "no_photo"
        return row
    probabilities = softmax(bundle, np.mean(used, axis=0))
    ranking = sorted(probabilities, key=lambda label: -probabilities[label])[:5]
    row |= {
        "decision": "needs_review",
        "score": probabilities[ranking[0]],
        "candidates": [{"category_id": c, "score": probabilities[c]} for c in ranking],
    }
    taxonomy = bundle.tree.taxonomy
    distances = class_distances(bundle, np.mean(used, axis=0))
    unfamiliar, anything_familiar = False, False
    for depth, threshold in reversed(list(enumerate(bundle.calibration.thresholds, start=1))):
        sums = {
            node.category_id: sum(
                p for c, p in probabilities.items() if taxonomy[c].path[:depth] == node.path
            )
            for node in taxonomy
            if len(node.path) == depth
        }
        best = max(sums, key=lambda node: sums[node])
        path = list(taxonomy[best].path)
        below = [d for c, d in distances.items() if list(taxonomy[c].path[:depth]) == path]
        near = bundle.familiarity is None or min(below) <= bundle.familiarity.limits[depth - 1]
        anything_familiar |= near
        if threshold is None or sums[best] < threshold:
            continue
        if near:
            return row | {
                "decision": "assigned",
                "category_id": best,
                "category_path": path,
                "score": sums[best],
            }
        unfamiliar = True
    is_unfamiliar = unfamiliar or not anything_familiar
    return row | {"review_reason": "unfamiliar" if is_unfamiliar else "unsure"}


def class_distances(bundle: Bundle, feature: npt.NDArray[np.float64]) -> dict[str, float]:
    if bundle.familiarity is None:
        return dict.fromkeys(bundle.tree.classes, 0.0)
    f = bundle.familiarity
    z = (feature - f.mean) / f.scale
    found = z @ z - (f.axes @ z) @ (f.axes @ z) - 2 * f.weight @ z + f.bias
    return dict(zip(bundle.tree.classes, found.tolist(), strict=True))


def softmax(bundle: Bundle, feature: npt.NDArray[np.float64]) -> dict[str, float]:
    head = bundle.head
    logits = (head.weight.astype(float) @ feature + head.bias) / bundle.calibration.temperature
    powers = np.exp(logits - logits.max())
    return dict(zip(bundle.tree.classes, (powers / powers.sum()).tolist(), strict=True))


def assert_alike(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal up to rounding of scores."""

    def without_scores(row: dict[str, Any]) -> dict[str, Any]:
        order = [candidate["category_id"] for candidate in row["candidates"]]
        return row | {"score": None, "candidates": order}

    def scores(row: dict[str, Any]) -> list[float]:
        return [row["score"] or 0, *(candidate["score"] for candidate in row["candidates"])]

    assert without_scores(found) == without_scores(expected)
    assert scores(found) == pytest.approx(scores(expected), abs=1e-5)


@pytest.mark.parametrize("knows_familiarity", [True, False])
def test_agrees_with_the_reference(
    undecided_bundle: Bundle, listings: list[Listing], knows_familiarity: bool
) -> None:
    """A bundle of format 1.0 has no familiarity."""
    bundle = undecided_bundle if knows_familiarity else replace(undecided_bundle, familiarity=None)
    found = score_listings(bundle, batch_of(listings))
    assert found.schema == SCORES
    for row, listing in zip(found.to_pylist(), listings, strict=True):
        assert_alike(row, reference(bundle, listing))


def test_the_listings_cover_every_outcome(
    undecided_bundle: Bundle, listings: list[Listing]
) -> None:
    rows = scored(undecided_bundle, listings)
    counts = Counter(row["decision"] for row in rows)
    depths = Counter(len(row["category_path"] or ()) for row in rows)
    assert all(counts[decision] >= 5 for decision in Decision)
    assert all(depths[depth] >= 3 for depth in (0, 1, 2, 3))
    assert len({row["reject_reason"] for row in rows}) > 4
    reasons = Counter(row["review_reason"] for row in rows)
    assert all(reasons[reason] >= 5 for reason in (ReviewReason.UNFAMILIAR, ReviewReason.UNSURE))


def test_a_score_equal_to_its_threshold_is_assigned(undecided_bundle: Bundle) -> None:
    """Calibration takes a listing's own score as threshold."""
    width = undecided_bundle.backbone.width
    listing = {"listing_id": "L", "photos": [photo(np.random.default_rng(0), 0, width)]}
    vector = np.frombuffer(listing["photos"][0]["vector"], "<f2")
    logits = undecided_bundle.head.logits(fuse_photos(vector[None], np.array([1])))
    leaf = float(undecided_bundle.tree.best(class_probabilities(logits, 1.0))[-1].score[0])
    for threshold, decision in ((leaf, "assigned"), (math.nextafter(leaf, 1), "needs_review")):
        calibration = Calibration(1.0, (None, None, threshold), 0.9)
        bundle = replace(undecided_bundle, calibration=calibration, familiarity=None)
        (row,) = scored(bundle, [listing])
        assert row["decision"] == decision


# Invariance


@settings(max_examples=25)
@given(data=st.data())
def test_order_and_batch_do_not_change_a_row(
    undecided_bundle: Bundle, listings: list[Listing], data: st.DataObject
) -> None:
    together = {row["listing_id"]: row for row in scored(undecided_bundle, listings)}
    chosen = data.draw(st.lists(st.sampled_from(listings), min_size=1, max_size=40))
    shuffled = [
        {"listing_id": x["listing_id"], "photos": data.draw(st.permutations(x["photos"]))}
        for x in chosen
    ]
    cut = data.draw(st.integers(0, len(shuffled)))
    rows = scored(undecided_bundle, shuffled[:cut]) + scored(undecided_bundle, shuffled[cut:])
    # Equal floats of a row are equal bits: neither NaN nor negative zero is among them.
    assert rows == [together[listing["listing_id"]] for listing in chosen]


@given(st.integers(0, 120), st.integers(0, 120))
def test_a_slice_of_a_batch_gives_its_rows(
    undecided_bundle: Bundle, listings: list[Listing], start: int, length: int
) -> None:
    whole = batch_of(listings)
    expected = score_listings(undecided_bundle, whole).slice(start, length)
    assert score_listings(undecided_bundle, whole.slice(start, length)).equals(expected)


def test_500_photos_in_any_order(undecided_bundle: Bundle) -> None:
    """Vectors of very different magnitudes, whose float32 sum would depend on the order."""
    rng = np.random.default_rng(0)
    photos = []
    for index in range(500):
        vector = rng.standard_normal(undecided_bundle.backbone.width) * 10.0 ** rng.integers(-6, 4)
        photos.append(photo(rng, index, 1) | {"vector": vector.astype("<f2").tobytes()})
    listing = {"listing_id": "many", "photos": photos}
    (row,) = scored(undecided_bundle, [listing])
    assert row["images_used"] == 500
    for _ in range(5):
        rng.shuffle(photos)
        assert scored(undecided_bundle, [listing]) == [row]


# Fusing


def test_fused_is_the_mean() -> None:
    vectors = np.array([[1, 2], [3, 4], [5, 6], [0, 1]], np.float16)
    fused = fuse_photos(vectors, np.array([3, 1]))
    assert fused.dtype == np.float32
    assert fused.tolist() == [[3, 4], [0, 1]]
    assert fuse_photos(vectors[:0], np.array([], np.int64)).shape == (0, 2)


# Rejected listings


@pytest.mark.parametrize(
    ("photos", "reason", "rejects"),
    [
        (None, "no_photo", None),
        ([], "no_photo", None),
        ([reject(0, "not_found")], "not_found", [(0, "not_found")]),
        ([reject(None, "no_photo")], "no_photo", [(-1, "no_photo")]),
        ([reject(3, None)], "unreadable", [(3, "unreadable")]),
        (
            [reject(2, "truncated"), reject(0, "not_found"), reject(1, "truncated")],
            "truncated",
            [(0, "not_found"), (1, "truncated"), (2, "truncated")],
        ),
        (
            [reject(1, "truncated"), reject(0, "not_found")],
            "not_found",
            [(0, "not_found"), (1, "truncated")],
        ),
        (
            [reject(0, "truncated"), reject(0, "empty_file"), reject(0, "truncated")],
            "truncated",
            [(0, "empty_file")],
        ),
    ],
)
def test_a_listing_without_usable_photos_is_rejected(
    undecided_bundle: Bundle,
    photos: list[Photo] | None,
    reason: str,
    rejects: list[tuple[int, str]] | None,
) -> None:
    (row,) = scored(undecided_bundle, [{"listing_id": "L", "photos": photos}])
    assert row == {
        "listing_id": "L",
        "decision": "rejected",
        "category_id": None,
        "category_path": None,
        "score": None,
        "candidates": [],
        "review_reason": None,
        "reject_reason": reason,
        "images_used": 0,
        "images_rejected": len(photos or ()),
        "image_rejects": rejects,
    }


def test_no_listings(undecided_bundle: Bundle) -> None:
    found = score_listings(undecided_bundle, batch_of([]))
    assert (found.num_rows, found.schema) == (0, SCORES)


def test_scores_pass_check_categories(undecided_bundle: Bundle, listings: list[Listing]) -> None:
    table = pa.Table.from_batches([score_listings(undecided_bundle, batch_of(listings))])
    origin = {
        "decided_by": "model",
        **dict.fromkeys(
            ("model_name", "model_version", "bundle_digest", "taxonomy_version", "run_id"), "x"
        ),
        "categorized_at": datetime(2026, 11, 25, tzinfo=UTC),
    }
    for name, value in origin.items():
        field = CATEGORIES.field(name)
        table = table.append_column(field, pa.array([value] * len(table), field.type))
    assert table.schema == CATEGORIES
    check_categories(table, "scores")
