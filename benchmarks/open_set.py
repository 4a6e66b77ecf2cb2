"""Open set: the precision of what is assigned when goods come that no label shows.

    .venv/bin/python -m benchmarks.open_set --data ../shared/data --backbone zoo:NAME

Three settings, on real photos and listings:

- clothing: taught the categories of `train`, given `extra_train`, with seven further categories;
- grocery, a third of its categories withheld, in five draws, given `test`;
- grocery given its `test` and as many listings of clothing.

Each with the backbone and with EfficientNet-Lite0 (`lite:0`, supervised on ImageNet, for
comparison only), for target precisions of 0.9 and 0.8, with the thresholds alone and with the
open-set part of `train_head`. Prints Markdown and writes JSON.
"""

import argparse
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from benchmarks.embedded_listings import embed_listings, of_categories
from benchmarks.results_file import write_results
from schemas.categories import ReviewReason
from schemas.taxonomy import Taxonomy
from seer_model.backbones.backbone import Backbone
from seer_model.categorizer.bundle import Bundle
from seer_model.categorizer.calibration import CalibrationSample, calibrate
from seer_model.categorizer.familiarity import level_distances
from seer_model.categorizer.scoring import score_listings
from seer_model.categorizer.thresholds import class_probabilities
from seer_model.evaluation.comparison import wilson_interval
from seer_model.evaluation.outcomes import compare_with_labels
from seer_model.tracking.registry import resolve_backbone
from seer_model.training.fit import fit_bundle
from seer_model.training.labelled import LabelledPhotos

log = logging.getLogger("open_set")

LITE0 = "lite:0"
TARGETS = (0.9, 0.8)
DRAWS = 5
UNSEEN_SHARE = 0.2
"""The default of `train_head --unseen-share`."""

NOWHERE = ""
"""The label of listings whose category the taxonomy does not have."""


@dataclass(frozen=True)
class Setting:
    """What a model is taught, and the listings that it is given; photos grouped by listing."""

    name: str
    taxonomy: Taxonomy
    train: LabelledPhotos
    val: LabelledPhotos
    given: LabelledPhotos


def read_settings(data: Path, backbone: Backbone) -> Iterator[Setting]:
    """Embed the photos; yields the three settings, with five draws of the second."""
    taxonomy, clothing = embed_listings(data / "clothing", backbone)
    taught = set(clothing["train"].labels)
    val = of_categories(clothing["val"], taught)
    yield Setting("clothing", taxonomy, clothing["train"], val, clothing["extra_train"])
    taxonomy, grocery = embed_listings(data / "grocery", backbone)
    train, val, test = (grocery[split] for split in ("train", "val", "test"))
    names = sorted(set(train.labels))
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(names))
        kept = {names[i] for i in order[len(names) // 3 :]}
        some = of_categories(train, kept), of_categories(val, kept)
        yield Setting(f"grocery without a third, draw {draw + 1}", taxonomy, *some, test)
    given = with_others(test, list(clothing.values()))
    yield Setting("grocery with clothing", taxonomy, train, val, given)


def with_others(photos: LabelledPhotos, others: list[LabelledPhotos]) -> LabelledPhotos:
    """The photos, and as many listings of `others`, drawn at random, that belong nowhere."""
    ids = sorted({listing for part in others for listing in part.listing_ids})
    count = len(photos.listing_labels())
    drawn = {ids[i] for i in np.random.default_rng(0).permutation(len(ids))[:count]}
    added = [part.some(np.flatnonzero([i in drawn for i in part.listing_ids])) for part in others]
    return LabelledPhotos(
        [*photos.listing_ids, *(i for part in added for i in part.listing_ids)],
        [*photos.labels, *(NOWHERE for part in added for _ in part.labels)],
        np.concatenate([photos.vectors, *(part.vectors for part in added)]),
    ).by_listing()


def measure(setting: Setting, backbone: Backbone) -> dict[str, Any]:
    """Measure a setting: each target with and without, then separation by several scores."""
    rows = []
    for target in TARGETS:
        bundle = fit_bundle(
            backbone,
            setting.taxonomy,
            setting.train,
            setting.val,
            target_precision=target,
            unseen_share=UNSEEN_SHARE,
            seed=0,
            origin={},
        ).bundle
        rows.append(
            {
                "target": target,
                "without": decide(thresholds_alone(bundle, setting.val, target), setting),
                "with": decide(bundle, setting),
            }
        )
    known = np.isin(setting.given.listing_labels(), bundle.tree.classes)
    return {
        "setting": setting.name,
        "listings": len(known),
        "unseen_share": float(1 - known.mean()),
        "auroc": separation(bundle, setting, known),
        "targets": rows,
    }


def thresholds_alone(bundle: Bundle, val: LabelledPhotos, target: float) -> Bundle:
    """The bundle with the thresholds of known goods, for which everything is familiar."""
    sample = CalibrationSample(bundle.head.logits(val.fused()), val.listing_labels())
    calibration = calibrate(sample, bundle.tree, target)
    return replace(bundle, calibration=calibration, familiarity=None)


def decide(bundle: Bundle, setting: Setting) -> dict[str, Any]:
    """Score the listings; returns the figures."""
    labels = setting.given.listing_labels()
    scores = pa.Table.from_batches([score_listings(bundle, setting.given.listings())])
    found = compare_with_labels(bundle.tree, labels, scores)
    unfamiliar = np.array(scores.column("review_reason").to_pylist()) == ReviewReason.UNFAMILIAR
    known, assigned = found.known, found.assigned
    figures: dict[str, Any] = {
        "thresholds": bundle.calibration.thresholds,
        "assigned": int(assigned.sum()),
        "coverage_known": float(assigned[known].mean()),
        "exact_coverage_known": float(found.exact[known].mean()),
        "coverage_unseen": float(assigned[~known].mean()),
        "unfamiliar_known": float(unfamiliar[known].mean()),
        "unfamiliar_unseen": float(unfamiliar[~known].mean()),
    }
    if assigned.any():
        right = int(found.right[assigned].sum())
        low, high = wilson_interval(right, figures["assigned"])
        figures |= {"precision": right / figures["assigned"], "low": low, "high": high}
    return figures


def separation(bundle: Bundle, setting: Setting, known: npt.NDArray[np.bool_]) -> dict[str, float]:
    """How well scores tell known from unseen listings: area under the ROC curve."""
    assert bundle.familiarity is not None
    features, train = setting.given.fused(), setting.train.fused()
    logits = bundle.head.logits(features)
    best = bundle.tree.best(class_probabilities(logits, 1.0))
    distances = bundle.familiarity.distances(features)
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-6
    neighbours = NearestNeighbors(n_neighbors=5, metric="cosine").fit((train - mean) / deviation)
    cosine = neighbours.kneighbors((features - mean) / deviation)[0][:, -1]
    scores = {
        "distance to the chosen class": -level_distances(distances, bundle.tree, best)[:, -1],
        "distance to the nearest class": -distances.min(axis=1),
        "5 nearest neighbours": -cosine,
        "energy": np.logaddexp.reduce(logits.astype(np.float64), axis=1),
        "maximal probability": best[-1].score,
    }
    return {name: float(roc_auc_score(known, score)) for name, score in scores.items()}


def promise_table(results: list[dict[str, Any]]) -> str:
    """The promise, as a Markdown table."""
    lines = [
        "| features | setting | unseen | target | precision, thresholds alone | with open set "
        "| coverage of known, alone | with open set | exact, with | unfamiliar: known | unseen |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        for row in result["targets"]:
            one, two = row["without"], row["with"]
            lines.append(
                f"| {result['features']} | {result['setting']} | {result['unseen_share']:.2f} "
                f"| {row['target']} | {precision(one)} | {precision(two)} "
                f"| {one['coverage_known']:.2f} | {two['coverage_known']:.2f} "
                f"| {two['exact_coverage_known']:.2f} | {two['unfamiliar_known']:.2f} "
                f"| {two['unfamiliar_unseen']:.2f} |"
            )
    return "\n".join(lines)


def precision(figures: dict[str, Any]) -> str:
    """The precision with its 95 % interval (Wilson)."""
    if not figures["assigned"]:
        return "nothing assigned"
    return f"{figures['precision']:.3f} ({figures['low']:.3f} to {figures['high']:.3f})"


def separation_table(results: list[dict[str, Any]]) -> str:
    """The areas under the ROC curve, as a Markdown table."""
    names = list(results[0]["auroc"])
    lines = [f"| features | setting | {' | '.join(names)} |", "|---|---|" + "--:|" * len(names)]
    for result in results:
        cells = " | ".join(f"{result['auroc'][name]:.3f}" for name in names)
        lines.append(f"| {result['features']} | {result['setting']} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--backbone", required=True, help="as train_head's --backbone")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    if not (arguments.data / "grocery").is_dir():
        parser.error(f"--data {arguments.data}: no folder grocery there")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    results = []
    for name in (arguments.backbone, LITE0):
        backbone = resolve_backbone(name)
        for setting in read_settings(arguments.data, backbone):
            log.info("%s: %s", name, setting.name)
            row = {"features": name, "digest": backbone.digest}
            results.append({**row, **measure(setting, backbone)})
    markdown = (
        f"{promise_table(results)}\n\nKnown from unseen listings, area under the ROC curve:\n\n"
        f"{separation_table(results)}"
    )
    record = {"unseen_share": UNSEEN_SHARE, "results": results, "markdown": markdown}
    write_results(arguments.results / "open_set.json", record)


if __name__ == "__main__":
    main()
