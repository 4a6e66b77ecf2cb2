"""The evaluation record: all figures of a challenger and a champion, as JSON."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from seer_model.backbones.backbone import Backbone
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.categorizer.bundle import Bundle, ResolvedBundle
from seer_model.evaluation.comparison import compare_figures, compare_groups
from seer_model.evaluation.groups import (
    SMALL_SLICE,
    Rows,
    find_worse_slices,
    rows_by_slice,
    worst_groups,
)
from seer_model.evaluation.metrics import BINS, coverage_at, measure_quality, score_bins
from seer_model.evaluation.outcomes import Outcomes

__all__ = [
    "EvaluatedModel",
    "evaluation_record",
    "reliability",
    "risk_coverage",
]

_SECONDS_OF_SPEED = 1.0
_CURVE_POINTS = 200


@dataclass(frozen=True)
class EvaluatedModel:
    """A model and the outcomes of the labelled listings with it."""

    model: ResolvedBundle
    outcomes: Outcomes


def evaluation_record(
    challenger: EvaluatedModel,
    champion: EvaluatedModel | None,
    listing_ids: Sequence[str],
    slices: Sequence[Mapping[str, str] | None],
    origin: Mapping[str, Any],
    device: str,
) -> dict[str, Any]:
    """Measure and compare the models.

    Args:
        challenger: Evaluated on the labelled listings.
        champion: Evaluated on the same listings, in the same order, or None.
        listing_ids: Each listing's id.
        slices: Each listing's slices, value by name.
        origin: What was evaluated on; copied into the record.
        device: torch's name of the device to measure the speed on.

    Returns:
        JSON-serializable. `challenger` and `champion` (None without one): the model, its size and
        speed, `figures`, `worst_groups` (a list of `groups.WorstGroup`), and the points of the
        curves. `differences` by figure. `much_worse`: a `groups.SliceSearch` of the challenger,
        with the ids of listings (`examples`) for their rows. `slices`,
        `pooled_slices` (those below `SMALL_SLICE`, together for each name) and `categories`, each a
        list of `comparison.GroupResult`. `paths`: the labels' and best classes' paths in the
        challenger's taxonomy. `missing_categories`: those that the champion may assign and that the
        challenger's taxonomy lacks.
    """
    target = challenger.model.bundle.calibration.target_precision
    # A speed is the backbone's: models that share one are timed once.
    speeds: dict[str, float] = {}
    outcomes = challenger.outcomes
    baseline = None if champion is None else champion.outcomes
    differences = {} if baseline is None else compare_figures(outcomes, baseline)
    by_slice, by_category = rows_by_slice(slices), _rows_by_label(outcomes.labels)
    return {
        **origin,
        "challenger": _model_record(challenger, by_slice, target, speeds, device),
        "champion": champion and _model_record(champion, by_slice, target, speeds, device),
        "differences": {name: asdict(difference) for name, difference in differences.items()},
        "slices": [
            asdict(group)
            for group in compare_groups(by_slice, outcomes, baseline, are_categories=False)
        ],
        "pooled_slices": [
            asdict(group)
            for group in compare_groups(_pooled(by_slice), outcomes, baseline, are_categories=False)
        ],
        "categories": [
            asdict(group)
            for group in compare_groups(by_category, outcomes, baseline, are_categories=True)
        ],
        "much_worse": _much_worse(by_slice, outcomes, listing_ids),
        "paths": _paths(challenger.model.bundle, outcomes),
        "missing_categories": (
            _missing_categories(challenger.model.bundle, champion.model.bundle) if champion else []
        ),
    }


def _model_record(
    evaluated: EvaluatedModel,
    by_slice: Rows,
    target_precision: float,
    speeds: dict[str, float],
    device: str,
) -> dict[str, Any]:
    bundle, outcomes = evaluated.model.bundle, evaluated.outcomes
    backbone, files = bundle.backbone, evaluated.model.folder.rglob("*")
    if backbone.digest not in speeds:
        speeds[backbone.digest] = _photos_per_second(backbone, device)
    return {
        "model": f"{evaluated.model.name}/{evaluated.model.version}",
        "bundle_digest": bundle.digest,
        "backbone": f"{backbone.architecture}: {backbone.origin}",
        "licence": backbone.licence,
        "taxonomy_version": bundle.tree.taxonomy.version,
        "classes": len(bundle.tree.classes),
        "parameters": sum(t.numel() for t in backbone.weights.values()) + bundle.head.weight.size,
        "megabytes": sum(file.stat().st_size for file in files if file.is_file()) / 1e6,
        "photos_per_second": speeds[backbone.digest],
        "target_precision": bundle.calibration.target_precision,
        "figures": measure_quality(outcomes).figures()
        | {"coverage_at_target": coverage_at(outcomes, target_precision)},
        "worst_groups": [asdict(worst) for worst in worst_groups(by_slice, outcomes.hit)],
        "reliability": reliability(outcomes),
        "risk_coverage": risk_coverage(outcomes),
    }


def _photos_per_second(backbone: Backbone, device: str) -> float:
    """Time the trunk alone, without reading or decoding, on all cores or one GPU."""
    runtime = open_runtime(backbone, device, threads=os.cpu_count() or 1)
    side = runtime.preprocessing.image_size
    pixels = np.zeros((runtime.batch_size, side, side, 3), np.uint8)
    runtime.start(pixels)()  # Warm-up.
    batches, started = 0, perf_counter()
    while (seconds := perf_counter() - started) < _SECONDS_OF_SPEED:
        runtime.start(pixels)()
        batches += 1
    return batches * runtime.batch_size / seconds


def reliability(outcomes: Outcomes) -> list[dict[str, float]]:
    """Return the reliability curve: listings, mean score and share right of each non-empty bin."""
    bins = score_bins(outcomes)
    points = []
    for i in range(BINS):
        rows = outcomes.photographed & (bins == i)
        if rows.any():
            points.append(
                {
                    "listings": int(rows.sum()),
                    "score": float(outcomes.confidence[rows].mean()),
                    "right": float(outcomes.hit[rows].mean()),
                }
            )
    return points


def risk_coverage(outcomes: Outcomes) -> list[tuple[float, float]]:
    """Return coverage and precision of the best class, from the strictest threshold to none."""
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


def _much_worse(by_slice: Rows, outcomes: Outcomes, listing_ids: Sequence[str]) -> dict[str, Any]:
    found = asdict(find_worse_slices(by_slice, outcomes))
    for group in found["worse"]:
        group["examples"] = [listing_ids[row] for row in group.pop("rows")]
    return found


def _pooled(by_slice: Rows) -> dict[str, npt.NDArray[np.int64]]:
    """The listings of the small slices of each name, where it has more than one."""
    small: dict[str, list[npt.NDArray[np.int64]]] = {}
    for group, rows in by_slice.items():
        if len(rows) < SMALL_SLICE:
            small.setdefault(group.partition("=")[0], []).append(rows)
    return {
        f"{name}: {len(rows)} values of fewer than {SMALL_SLICE} listings": np.concatenate(rows)
        for name, rows in small.items()
        if len(rows) > 1
    }


def _paths(bundle: Bundle, outcomes: Outcomes) -> dict[str, str]:
    taxonomy = bundle.tree.taxonomy
    named = sorted({*outcomes.labels, *outcomes.best} - {None}, key=str)
    return {c: " > ".join(taxonomy[c].path) for c in named if c is not None and c in taxonomy}


def _missing_categories(challenger: Bundle, champion: Bundle) -> list[str]:
    return [c for c in champion.tree.categories if c not in challenger.tree.taxonomy]
