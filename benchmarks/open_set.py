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
import csv
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from benchmarks.label_efficiency import Extractor
from benchmarks.results_file import write_results
from schemas.taxonomy import Taxonomy
from schemas.taxonomy_readers import read_taxonomy
from seer_model.categorizer.calibration import (
    Calibration,
    CalibrationSample,
    calibrate,
    class_probabilities,
)
from seer_model.categorizer.familiarity import Familiarity, level_distances
from seer_model.categorizer.head import LinearHead
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.scoring import fuse_photos
from seer_model.photos.source import PhotoSource
from seer_model.tracking.registry import resolve_backbone
from seer_model.training.head import train_head
from seer_model.training.unseen import (
    HeldOut,
    add_unseen,
    choose_limits,
    fit_familiarity,
    score_held_out,
)

log = logging.getLogger("open_set")

LITE0 = "lite:0"
TARGETS = (0.9, 0.8)
DRAWS = 5
UNSEEN_SHARE = 0.2
"""The default of `train_head --unseen-share`."""

Vectors = npt.NDArray[np.float16]
Flags = npt.NDArray[np.bool_]


class Listings(NamedTuple):
    """Listings of a split: photos, and their fused features; a label each."""

    photos: Vectors
    photo_labels: list[str]
    features: npt.NDArray[np.float32]
    labels: list[str]

    def of(self, classes: set[str]) -> "Listings":
        """Those with these labels."""
        photos = np.array([label in classes for label in self.photo_labels], np.bool_)
        rows = np.array([label in classes for label in self.labels], np.bool_)
        return Listings(
            self.photos[photos],
            [label for label in self.photo_labels if label in classes],
            self.features[rows],
            [label for label in self.labels if label in classes],
        )


@dataclass(frozen=True)
class Photos:
    """A data set with the embeddings of its photos, by split."""

    taxonomy: Taxonomy
    splits: dict[str, Listings]


@dataclass(frozen=True)
class Setting:
    """What a model is taught, and the listings that it is given; `""` is a label it cannot know."""

    name: str
    taxonomy: Taxonomy
    train: Listings
    val: Listings
    features: npt.NDArray[np.float32]
    labels: list[str]


@dataclass(frozen=True)
class Model:
    """A head with all that its thresholds are chosen on."""

    tree: ClassTree
    head: LinearHead
    familiarity: Familiarity
    sample: CalibrationSample
    distances: npt.NDArray[np.float32]
    held_out: HeldOut | None


def read_photos(folder: Path, extractor: Extractor) -> Photos:
    """Embed the photos of `listings.csv`, and fuse them by listing."""
    with (folder / "listings.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["listing_id"])
    vectors = embed(extractor, [folder / row["path"] for row in rows])
    splits = {}
    for split in sorted({row["split"] for row in rows}):
        chosen = [i for i, row in enumerate(rows) if row["split"] == split]
        ids = [rows[i]["listing_id"] for i in chosen]
        labels = [rows[i]["category_id"] for i in chosen]
        _, firsts, counts = np.unique(ids, return_index=True, return_counts=True)
        photos = vectors[chosen]
        fused = fuse_photos(photos, counts.astype(np.int64))
        splits[split] = Listings(photos, labels, fused, [labels[i] for i in firsts])
    return Photos(read_taxonomy(folder / "taxonomy.csv"), splits)


def embed(extractor: Extractor, paths: list[Path]) -> Vectors:
    """Embed photos; returns float16 of shape (photos, width)."""
    sources = (PhotoSource(path.absolute().as_uri(), None) for path in paths)
    vectors = [photo.vector for photo in extractor.embedder.embed(sources)]
    return np.stack([vector for vector in vectors if vector is not None])


def settings(grocery: Photos, clothing: Photos) -> Iterator[Setting]:
    """The three settings, with five draws of the second."""
    train, new = clothing.splits["train"], clothing.splits["extra_train"]
    val = clothing.splits["val"]
    yield Setting("clothing", clothing.taxonomy, train, val, new.features, new.labels)
    train, val, test = (grocery.splits[split] for split in ("train", "val", "test"))
    names = sorted(set(train.labels))
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(names))
        kept = {names[i] for i in order[len(names) // 3 :]}
        name = f"grocery without a third, draw {draw + 1}"
        taught = train.of(kept), val.of(kept)
        yield Setting(name, grocery.taxonomy, *taught, test.features, test.labels)
    every = np.concatenate([s.features for s in clothing.splits.values()])
    rows = np.random.default_rng(0).permutation(len(every))[: len(test.labels)]
    features = np.concatenate([test.features, every[rows]])
    labels = test.labels + [""] * len(rows)
    yield Setting("grocery with clothing", grocery.taxonomy, train, val, features, labels)


def fit(setting: Setting) -> Model:
    """Train head and familiarity, and score the held-out listings, as `fit_bundle` does."""
    train, val = setting.train, setting.val.of(set(setting.train.labels))
    tree = ClassTree(setting.taxonomy, train.labels)

    def positions(labels: list[str]) -> npt.NDArray[np.int64]:
        return np.array([tree.position[label] for label in labels], np.int64)

    taught, stop_by = positions(train.photo_labels), positions(val.photo_labels)

    def train_on(kept: Flags) -> LinearHead:
        position, rows, val_rows = np.cumsum(kept) - 1, kept[taught], kept[stop_by]
        head = train_head(
            train.photos[rows],
            position[taught[rows]],
            val.photos[val_rows],
            position[stop_by[val_rows]],
            classes=int(kept.sum()),
        ).head
        weight = np.zeros((len(kept), head.weight.shape[1]), np.float32)
        bias = np.full(len(kept), -np.inf, np.float32)
        weight[kept], bias[kept] = head.weight, head.bias
        return LinearHead(weight, bias)

    head = train_on(np.ones(len(tree.classes), np.bool_))
    familiarity = fit_familiarity(train.photos, taught, len(tree.classes))
    held_out = score_held_out(
        tree, train.photos, taught, train.features, positions(train.labels), train_on, seed=0
    )
    sample = CalibrationSample(head.logits(val.features), val.labels)
    distances = familiarity.distances(val.features)
    familiarity = replace(familiarity, limits=choose_limits(distances, sample, tree))
    return Model(tree, head, familiarity, sample, distances, held_out)


def measure(setting: Setting) -> dict[str, Any]:
    """Measure a setting: separation by several scores, then each target with and without."""
    model = fit(setting)
    known = np.array([label in model.tree.position for label in setting.labels], np.bool_)
    rows = []
    for target in TARGETS:
        alone = calibrate(model.sample, model.tree, target)
        mixed = add_unseen(
            model.sample,
            model.distances,
            model.familiarity.limits,
            model.tree,
            model.held_out,
            UNSEEN_SHARE,
        )
        both = calibrate(mixed, model.tree, target)
        rows.append(
            {
                "target": target,
                "without": decide(model, setting, known, alone, gate=False),
                "with": decide(model, setting, known, both, gate=True),
            }
        )
    unseen_share = float(1 - known.mean())
    return {
        "setting": setting.name,
        "listings": len(known),
        "unseen_share": unseen_share,
        "auroc": separation(model, setting, known),
        "targets": rows,
    }


def decide(
    model: Model, setting: Setting, known: Flags, calibration: Calibration, *, gate: bool
) -> dict[str, Any]:
    """Decide on the listings as `score_listings` does; returns the figures."""
    tree = model.tree
    logits = model.head.logits(setting.features)
    best = tree.best(class_probabilities(logits, calibration.temperature))
    near = np.ones((len(known), len(tree.levels)), np.bool_)
    if gate:
        near = model.familiarity.is_familiar(setting.features, tree, best)
    assigned: list[str | None] = [None] * len(known)
    for depth, (level, found) in enumerate(zip(tree.levels, best, strict=True)):
        threshold = calibration.thresholds[depth]
        if threshold is not None:
            for row in np.flatnonzero((found.score >= threshold) & near[:, depth]):
                assigned[row] = level.categories[found.position[row]]
    is_assigned = np.array([category is not None for category in assigned], np.bool_)
    right = sum(
        category is not None and tree.covers(category, label)
        for category, label in zip(assigned, setting.labels, strict=True)
    )
    exact = np.array([category in tree.exact for category in assigned], np.bool_)
    count = int(is_assigned.sum())
    figures: dict[str, Any] = {
        "thresholds": calibration.thresholds,
        "assigned": count,
        "coverage_known": float(is_assigned[known].mean()),
        "exact_coverage_known": float(exact[known].mean()),
        "coverage_unseen": float(is_assigned[~known].mean()),
        "unfamiliar_known": float((~near[known]).all(axis=1).mean()),
        "unfamiliar_unseen": float((~near[~known]).all(axis=1).mean()),
    }
    if count:
        interval = binomtest(right, count).proportion_ci(method="wilson")
        figures |= {"precision": right / count, "low": interval.low, "high": interval.high}
    return figures


def separation(model: Model, setting: Setting, known: Flags) -> dict[str, float]:
    """How well scores tell known from unseen listings: area under the ROC curve."""
    logits = model.head.logits(setting.features).astype(np.float64)
    best = model.tree.best(class_probabilities(logits.astype(np.float32), 1.0))
    distances = model.familiarity.distances(setting.features)
    train = setting.train.features
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-6
    neighbours = NearestNeighbors(n_neighbors=5, metric="cosine").fit((train - mean) / deviation)
    cosine = neighbours.kneighbors((setting.features - mean) / deviation)[0][:, -1]
    scores = {
        "distance to the chosen class": -level_distances(distances, model.tree, best)[:, -1],
        "distance to the nearest class": -distances.min(axis=1),
        "5 nearest neighbours": -cosine,
        "energy": np.logaddexp.reduce(logits, axis=1),
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
    warnings.filterwarnings("ignore", "The number of unique classes")
    backbone = resolve_backbone(arguments.backbone)
    results = []
    for name in (arguments.backbone, LITE0):
        extractor = Extractor(resolve_backbone(name))
        log.info("%s: embedding", name)
        grocery = read_photos(arguments.data / "grocery", extractor)
        clothing = read_photos(arguments.data / "clothing", extractor)
        for setting in settings(grocery, clothing):
            log.info("%s: %s", name, setting.name)
            results.append({"features": name, **measure(setting)})
    markdown = (
        f"{promise_table(results)}\n\nKnown from unseen listings, area under the ROC curve:\n\n"
        f"{separation_table(results)}"
    )
    identity = {"backbone": arguments.backbone, "digest": backbone.digest}
    record = {**identity, "unseen_share": UNSEEN_SHARE, "results": results, "markdown": markdown}
    write_results(arguments.results / "open_set.json", record)


if __name__ == "__main__":
    main()
