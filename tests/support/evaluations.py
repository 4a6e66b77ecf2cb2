"""Outcomes, evaluations and days' counts made up for tests."""

from collections import Counter
from typing import Any

import numpy as np

from seer_model.evaluation.drift import DISTRIBUTIONS, DayCounts
from seer_model.evaluation.outcomes import Outcomes

CATEGORIES = ("boots", "hats", "stools", "<b>dolls</b>")


def drawn_outcomes(listings: int, right: float, seed: int, labels_seed: int = 0) -> Outcomes:
    """Random outcomes over flat categories; about a share `right` of the best classes is right."""
    labels = np.random.default_rng(labels_seed).integers(0, len(CATEGORIES), listings)
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.uniform(0.3, 1, listings), 3)
    hit = rng.uniform(0, 1, listings) < right
    best = np.where(hit, labels, (labels + 1) % len(CATEGORIES))
    assigned = confidence > 0.5
    everywhere = np.ones(listings, np.bool_)
    taken = assigned.astype(np.int64)
    return Outcomes(
        labels=[CATEGORIES[i] for i in labels],
        best=[CATEGORIES[i] for i in best],
        photographed=everywhere,
        hit=hit,
        hit5=everywhere,
        parent=hit,
        confidence=confidence,
        known=everywhere,
        assigned=assigned,
        right=hit & assigned,
        exact=assigned & (confidence > 0.8),
        depths=np.stack([taken, np.ones_like(taken), taken * hit], axis=1),
        levels=hit.astype(np.int64)[:, None],
    )


def difference(value: float, margin: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - margin, "high": value + margin}


def group(name: str, listings: int, value: float, margin: float = 0.01) -> dict[str, Any]:
    return {"group": name, "listings": listings, "difference": difference(value, margin)}


RED = ("assigned", None, "warm/red", "Warm > Red")
BLUE = ("assigned", None, "cold/blue", "Cold > Blue")
COLD = ("assigned", None, "cold", "Cold")
REVIEW = ("needs_review", None, None, None)
GONE = ("rejected", "not_found", None, None)


def day_counts(ds: str, *rows: tuple[Any, ...], version: str = "1") -> DayCounts:
    """Count rows of (decision, reject reason, category, path, score bin, listings)."""
    counts: dict[str, Counter[Any]] = {name: Counter() for name in DISTRIBUTIONS}
    paths = {}
    for decision, reason, category, path, score, listings in rows:
        top = path and path.split(" > ")[0]
        review = "unsure" if decision == "needs_review" else None
        for name, value in zip(
            DISTRIBUTIONS, (category, top, decision, review, reason, score), strict=True
        ):
            if value is not None:
                counts[name][value] += listings
        paths[category] = path
    return DayCounts(ds, f"colours version {version}", "2026-01", counts, paths)


def drifted_days() -> tuple[DayCounts, DayCounts]:
    """Two days of a thousand listings: red became blue, and another model was used."""
    before = day_counts(
        "2026-11-24",
        (*RED, 19, 500),
        (*RED, 18, 300),
        (*COLD, 15, 100),
        (*REVIEW, 4, 90),
        (*GONE, None, 10),
    )
    after = day_counts(
        "2026-11-25",
        (*RED, 19, 200),
        (*BLUE, 16, 400),
        (*COLD, 15, 50),
        (*REVIEW, 4, 350),
        version="2",
    )
    return before, after
