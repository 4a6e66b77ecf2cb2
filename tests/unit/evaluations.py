"""Judged listings and evaluations drawn for tests."""

from typing import Any

import numpy as np

from seer_model.outcomes import Outcomes

CATEGORIES = ("boots", "hats", "stools", "<b>dolls</b>")


def drawn_outcomes(listings: int, right: float, seed: int, labels_seed: int = 0) -> Outcomes:
    """Flat categories, of whose listings about the share `right` is told; scores that are sure."""
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
        leaf=assigned,
        depths=np.stack([taken, np.ones_like(taken), taken * hit], axis=1),
        levels=hit.astype(np.int64)[:, None],
    )


def difference(value: float, margin: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - margin, "high": value + margin}


def group(name: str, listings: int, value: float, margin: float = 0.01) -> dict[str, Any]:
    return {"group": name, "listings": listings, "difference": difference(value, margin)}
