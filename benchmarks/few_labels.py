"""Few labels: what a model promises and keeps with 1 to 100 labels a class and no split `val`.

    .venv/bin/python -m benchmarks.few_labels --data ../shared/data --backbone zoo:NAME lite:0

Fits bundles as `train_head` does, on frozen features of each backbone, for a target of 0.9, and
scores the listings of a test split whose class was taught:

- few labels: so many listings a class of `train`, drawn at random, for several draws. Head,
  temperature and thresholds come from those alone, by cross-fitting, in folds by looks and, where
  the data set has senders, by sender;
- all labels, with the thresholds chosen by cross-fitting or on listings held out for it.

Cells and grocery are tested on `test`. Clothing has none of its known classes: it is tested on
`val`, and what is held out are the known listings of `extra_train`. Prints Markdown tables and
writes them as JSON.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.embedded_listings import SENDER, embed_listings, of_categories
from benchmarks.results_file import write_results
from schemas.taxonomy import Taxonomy
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.constants import DEFAULT_BACKBONE
from seer_model.categorizer.bundle import Bundle
from seer_model.categorizer.scoring import score_listings
from seer_model.evaluation.comparison import wilson_interval
from seer_model.evaluation.metrics import measure_quality
from seer_model.evaluation.outcomes import Outcomes, compare_with_labels
from seer_model.tracking.registry import resolve_backbone
from seer_model.training.fit import FittedBundle, fit_bundle
from seer_model.training.labelled import LabelledPhotos

log = logging.getLogger("few_labels")

TARGET = 0.9
DRAWS = 5


@dataclass(frozen=True)
class Task:
    """A data set, its splits, and how many labels a class and which folds to try."""

    held_out: str | None
    test: str
    labels: tuple[int, ...]
    folds: tuple[str | None, ...] = (None, SENDER)


TASKS = {
    "cells": Task(None, "test", (5, 20, 100)),
    "grocery": Task("val", "test", (1, 5, 20), folds=(None,)),
    "clothing": Task("extra_train", "val", (5, 20)),
}


@dataclass(frozen=True)
class Study:
    """A data set's embedded photos. `held_out` and `test` have classes of `train` only."""

    backbone: Backbone
    taxonomy: Taxonomy
    train: LabelledPhotos
    held_out: LabelledPhotos | None
    test: LabelledPhotos

    @classmethod
    def read(cls, folder: Path, task: Task, backbone: Backbone) -> "Study":
        """Embed the photos of the task's splits."""
        taxonomy, photos = embed_listings(folder, backbone)
        known = set(photos["train"].labels)

        def split(name: str) -> LabelledPhotos:
            return of_categories(photos[name], known)

        held_out = None if task.held_out is None else split(task.held_out)
        return cls(backbone, taxonomy, photos["train"], held_out, split(task.test))

    def few_labels(self, per_class: int, fold_by: str | None) -> dict[str, Any]:
        """Measure with so many labels a class, over draws that differ."""
        largest = max(Counter(dict(listings_of(self.train)).values()).values())
        draws = range(DRAWS if largest > per_class else 1)
        trains = [draw(self.train, per_class, seed) for seed in draws]
        return self._measure(trains, fold_by=fold_by)

    def all_labels(
        self, *, val: LabelledPhotos | None = None, fold_by: str | None = None
    ) -> dict[str, Any]:
        """Measure with all labels, the thresholds chosen on `val` or by cross-fitting."""
        return self._measure([self.train], val=val, fold_by=fold_by)

    def _measure(
        self,
        draws: list[LabelledPhotos],
        *,
        val: LabelledPhotos | None = None,
        fold_by: str | None,
    ) -> dict[str, Any]:
        fits = [
            fit_bundle(
                self.backbone,
                self.taxonomy,
                train,
                val or train.some(np.empty(0, np.int64)),
                target_precision=TARGET,
                unseen_share=0.0,  # Every listing tested is of a class that was taught.
                seed=0,
                origin={},
                fold_by=fold_by,
            )
            for train in draws
        ]
        return summary(fits, [outcomes_of(fit.bundle, self.test) for fit in fits])


def listings_of(photos: LabelledPhotos) -> list[tuple[str, str]]:
    """Listing and label of each photo."""
    return list(zip(photos.listing_ids, photos.labels, strict=True))


def draw(photos: LabelledPhotos, per_class: int, seed: int) -> LabelledPhotos:
    """Draw at most so many listings of each class, with all their photos."""
    listings = sorted(set(listings_of(photos)))
    left, taken = Counter(dict.fromkeys(photos.labels, per_class)), set()
    for i in np.random.default_rng(seed).permutation(len(listings)):
        listing, label = listings[i]
        if left[label]:
            left[label] -= 1
            taken.add(listing)
    return photos.some(np.flatnonzero([listing in taken for listing in photos.listing_ids]))


def outcomes_of(bundle: Bundle, photos: LabelledPhotos) -> Outcomes:
    """Score the photos' listings, and compare them with their labels."""
    scores = pa.Table.from_batches([score_listings(bundle, photos.listings())])
    return compare_with_labels(bundle.tree, photos.listing_labels(), scores)


def summary(fits: Sequence[FittedBundle], outcomes: Sequence[Outcomes]) -> dict[str, Any]:
    """Average the figures of the draws; the interval is that of a single one."""
    qualities = [measure_quality(found) for found in outcomes]
    top1 = [quality.top1 for quality in qualities]
    return {
        "draws": len(fits),
        "listings": qualities[0].listings,
        "thresholds": (rest_on := fits[0].bundle.training["calibrated_on"]),
        "folds": rest_on.partition("folds by ")[2],
        "heads": sorted({fit.bundle.training["head"] for fit in fits}),
        "top1": float(np.mean(top1)),
        "top1_range": [min(top1), max(top1)],
        "calibration_error": float(np.mean([q.calibration_error for q in qualities])),
        "coverage": float(np.mean([q.coverage for q in qualities])),
        "exact_coverage": float(np.mean([q.exact_coverage for q in qualities])),
        "assigned": precision([found.right[found.assigned] for found in outcomes]),
        "assigned_exact": precision([found.right[found.exact] for found in outcomes]),
        "labels_missing": [fit.shortfall and fit.shortfall.labels_missing for fit in fits],
    }


def precision(draws: Sequence[np.ndarray[Any, np.dtype[np.bool_]]]) -> dict[str, Any] | None:
    """Share of right ones, and in how many draws it is below the target; None if there are none.

    The draws are of one test split, so their listings do not add up: the Wilson interval is that
    of as many listings as a draw has on average.
    """
    total = sum(map(len, draws)) / len(draws)
    if not total:
        return None
    right = float(sum(found.sum() for found in draws)) / len(draws)
    low, high = wilson_interval(round(right), max(1, round(total)))
    below = sum(len(found) > 0 and float(found.mean()) < TARGET for found in draws)
    return {"precision": right / total, "low": low, "high": high, "draws_below": below}


def measure(folder: Path, name: str, uri: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of labels, and for each way to choose the thresholds."""
    task, backbone = TASKS[name], resolve_backbone(uri)
    log.info("%s, %s: embedding", name, uri)
    study = Study.read(folder, task, backbone)
    row = {"data": name, "backbone": uri, "digest": backbone.digest}
    for per_class in task.labels:
        log.info("%s, %s: %d a class", name, uri, per_class)
        for fold_by in task.folds:
            yield {**row, "labels": per_class, **study.few_labels(per_class, fold_by)}
    log.info("%s, %s: all labels", name, uri)
    for fold_by in task.folds:
        yield {**row, "labels": "all", **study.all_labels(fold_by=fold_by)}
    if study.held_out is not None:
        yield {**row, "labels": "all", **study.all_labels(val=study.held_out)}


def few_labels_table(results: Sequence[dict[str, Any]]) -> str:
    """Format the results of few labels as Markdown."""
    lines = [
        "| listings of | backbone | labels a class | folds by | top-1 | ECE | coverage | "
        "precision | draws below 0.9 | of exact classes: coverage | precision | penalties |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for r in (r for r in results if r["labels"] != "all"):
        low, high = r["top1_range"]
        top1 = f"{r['top1']:.3f}" + (f" ({low:.3f} to {high:.3f})" if r["draws"] > 1 else "")
        below = "-" if r["assigned"] is None else f"{r['assigned']['draws_below']} of {r['draws']}"
        penalties = ", ".join(head.removeprefix("ridge, penalty ") for head in r["heads"])
        lines.append(
            f"| {r['data']} | {r['backbone']} | {r['labels']} | {r['folds']} | {top1} | "
            f"{r['calibration_error']:.3f} | {r['coverage']:.3f} | {shown(r['assigned'])} | "
            f"{below} | {r['exact_coverage']:.3f} | {shown(r['assigned_exact'])} | {penalties} |"
        )
    return "\n".join(lines)


def thresholds_table(results: Sequence[dict[str, Any]]) -> str:
    """Format what thresholds are worth by what they rest on, with all labels, as Markdown."""
    lines = [
        "| listings of | backbone | thresholds rest on | head | top-1 | coverage | precision | "
        "of exact classes: coverage | precision |",
        "|---|---|---|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {r['data']} | {r['backbone']} | {r['thresholds']} | {r['heads'][0]} | "
        f"{r['top1']:.3f} | {r['coverage']:.3f} | {shown(r['assigned'])} | "
        f"{r['exact_coverage']:.3f} | {shown(r['assigned_exact'])} |"
        for r in results
        if r["labels"] == "all"
    ]
    return "\n".join(lines)


def shown(found: dict[str, Any] | None) -> str:
    """A precision with its interval."""
    if found is None:
        return "-"
    return f"{found['precision']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--backbone", nargs="+", default=[DEFAULT_BACKBONE], help="each as train_head takes it"
    )
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS), help="data sets")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    for name in arguments.only:
        if not (arguments.data / name).is_dir():
            parser.error(f"--data {arguments.data}: no folder {name} there")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    results = [
        row
        for name in arguments.only
        for uri in arguments.backbone
        for row in measure(arguments.data / name, name, uri)
    ]
    markdown = (
        f"Few labels, no `val`, a target precision of {TARGET:g}:\n\n{few_labels_table(results)}"
        f"\n\nAll labels of `train`:\n\n{thresholds_table(results)}"
    )
    record = {"target": TARGET, "results": results, "markdown": markdown}
    write_results(arguments.results / "few_labels.json", record)


if __name__ == "__main__":
    main()
