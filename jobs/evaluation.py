"""An evaluation's figures: challenger and champion over the same labelled listings."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from seer_model.backbone import Backbone
from seer_model.bundle import Bundle
from seer_model.comparison import compare, compare_groups
from seer_model.metrics import BINS, coverage_at, quality_of
from seer_model.outcomes import Outcomes
from seer_model.registry import ResolvedBundle
from seer_model.runtime import open_runtime

__all__ = ["Judged", "evaluation_record", "reliability", "risk_coverage"]

_SECONDS_OF_SPEED = 1.0
_CURVE_POINTS = 200


@dataclass(frozen=True)
class Judged:
    """A model and what became of the listings with it."""

    model: ResolvedBundle
    outcomes: Outcomes


def evaluation_record(
    challenger: Judged,
    champion: Judged | None,
    slices: Sequence[Mapping[str, str] | None],
    origin: Mapping[str, Any],
    device: str,
) -> dict[str, Any]:
    """Everything that was found, as JSON holds it.

    Args:
        challenger: Judged on the labelled listings.
        champion: Judged on the same listings in the same order, or None.
        slices: Of each listing, by what it is grouped.
        origin: What was evaluated on; goes into the record as it is.
        device: torch's name of the device that the speed is measured on.

    Returns:
        `challenger` and `champion` (None without one): the model, its size and speed, `figures`,
        and the points of the curves. `differences` by figure, `slices` and `categories` as
        `comparison.GroupResult`. `missing_categories`: those that the champion may assign and the
        challenger's taxonomy lacks.
    """
    target = challenger.model.bundle.calibration.target_precision
    speeds: dict[str, float] = {}
    mine = challenger.outcomes
    theirs = None if champion is None else champion.outcomes
    by_category = _rows_by_label(mine.labels)
    return {
        **origin,
        "challenger": _model_record(challenger, target, speeds, device),
        "champion": champion and _model_record(champion, target, speeds, device),
        "differences": (
            {name: asdict(d) for name, d in compare(mine, theirs).items()} if theirs else {}
        ),
        "slices": [
            asdict(g)
            for g in compare_groups(_rows_by_slice(slices), mine, theirs, are_categories=False)
        ],
        "categories": [
            asdict(g) for g in compare_groups(by_category, mine, theirs, are_categories=True)
        ],
        "missing_categories": (
            _missing(challenger.model.bundle, champion.model.bundle) if champion else []
        ),
    }


def _model_record(
    judged: Judged, target: float, speeds: dict[str, float], device: str
) -> dict[str, Any]:
    bundle, outcomes = judged.model.bundle, judged.outcomes
    backbone = bundle.backbone
    if backbone.digest not in speeds:
        speeds[backbone.digest] = _photos_per_second(backbone, device)
    return {
        "model": f"{judged.model.name}/{judged.model.version}",
        "bundle_digest": bundle.digest,
        "backbone": f"{backbone.architecture}: {backbone.origin}",
        "licence": backbone.licence,
        "taxonomy_version": bundle.tree.taxonomy.version,
        "classes": len(bundle.tree.classes),
        "parameters": sum(t.numel() for t in backbone.weights.values()) + bundle.head.weight.size,
        "megabytes": sum(f.stat().st_size for f in judged.model.folder.rglob("*") if f.is_file())
        / 1e6,
        "photos_per_second": speeds[backbone.digest],
        "target_precision": bundle.calibration.target_precision,
        "figures": quality_of(outcomes).figures()
        | {"coverage_at_target": coverage_at(outcomes, target)},
        "reliability": reliability(outcomes),
        "risk_coverage": risk_coverage(outcomes),
    }


def _photos_per_second(backbone: Backbone, device: str) -> float:
    """Of the model alone, without reading or decoding, on all cores or one GPU."""
    runtime = open_runtime(backbone, device, threads=os.cpu_count() or 1)
    side = runtime.preprocessing.image_size
    pixels = np.zeros((runtime.batch_size, side, side, 3), np.uint8)
    runtime.start(pixels)()
    batches, started = 0, perf_counter()
    while (seconds := perf_counter() - started) < _SECONDS_OF_SPEED:
        runtime.start(pixels)()
        batches += 1
    return batches * runtime.batch_size / seconds


def reliability(outcomes: Outcomes) -> list[dict[str, float]]:
    """Of each bin of scores that has listings: how many, their mean score, how many were right."""
    bins = np.minimum((outcomes.confidence * BINS).astype(int), BINS - 1)
    found = []
    for i in range(BINS):
        rows = outcomes.photographed & (bins == i)
        if rows.any():
            found.append(
                {
                    "listings": int(rows.sum()),
                    "score": float(outcomes.confidence[rows].mean()),
                    "right": float(outcomes.hit[rows].mean()),
                }
            )
    return found


def risk_coverage(outcomes: Outcomes) -> list[tuple[float, float]]:
    """Coverage and precision of the best class at thresholds from strict to none."""
    rows = np.flatnonzero(outcomes.photographed)
    order = rows[np.argsort(-outcomes.confidence[rows], kind="stable")]
    right = np.cumsum(outcomes.hit[order])
    if not len(order):
        return []
    at = np.unique(np.linspace(1, len(order), _CURVE_POINTS).astype(int))
    return [(float(n / len(outcomes.labels)), float(right[n - 1] / n)) for n in at]


def _rows_by_label(labels: Sequence[str]) -> dict[str, npt.NDArray[np.int64]]:
    names, index = np.unique(np.array(labels, object), return_inverse=True)
    return {str(name): np.flatnonzero(index == i) for i, name in enumerate(names)}


def _rows_by_slice(
    slices: Sequence[Mapping[str, str] | None],
) -> dict[str, npt.NDArray[np.int64]]:
    rows: dict[str, list[int]] = {}
    for row, named in enumerate(slices):
        for key, value in dict(named or {}).items():
            rows.setdefault(f"{key}={value}", []).append(row)
    return {name: np.array(found, np.int64) for name, found in rows.items()}


def _missing(challenger: Bundle, champion: Bundle) -> list[str]:
    return [c for c in champion.tree.categories if c not in challenger.tree.taxonomy]
