"""Active learning: what a person's decisions are worth, chosen or drawn at random.

    .venv/bin/python -m benchmarks.active_learning --data ../shared/data --backbone zoo:NAME

People are simulated by labels that were held back. Starts with two labelled listings a class of
`train`, the others being the day's listings without a label. In rounds of 100 decisions, listings
are drawn at random, or chosen to learn from, or both as `jobs.select_reviews` does without audits.
Their labels are added, and a bundle is fitted as `train_head` does, without `val`, for a target of
0.9. Measured on listings of other splits whose class was taught: grocery's `test`, clothing's
`val`.

Prints a Markdown table, writes it as JSON, and plots top-1 and coverage by the number of decisions.
"""

import argparse
import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.embedded_listings import embed_listings, of_categories
from benchmarks.few_labels import TARGET, draw, outcomes_of
from benchmarks.results_file import write_results
from schemas.taxonomy import Taxonomy
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.constants import DEFAULT_BACKBONE
from seer_model.categorizer.bundle import Bundle
from seer_model.categorizer.thresholds import class_probabilities
from seer_model.evaluation.metrics import measure_quality
from seer_model.reviews.selection import margins, most_instructive
from seer_model.tracking.registry import resolve_backbone
from seer_model.training.fit import fit_bundle
from seer_model.training.labelled import LabelledPhotos

log = logging.getLogger("active_learning")

TESTS = {"grocery": "test", "clothing": "val"}
START = 2
ROUND = 100
ROUNDS = 10
# Of each round, as many are drawn at random.
WAYS = {"at random": 1.0, "chosen": 0.0, "as select_reviews": 0.3}
FIGURES = ("top1", "balanced", "coverage", "precision")


def measure(
    taxonomy: Taxonomy,
    backbone: Backbone,
    pool: LabelledPhotos,
    test: LabelledPhotos,
    *,
    share: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Measure a bundle before the first round and after every one.

    Args:
        taxonomy: Of the labels.
        backbone: That embedded the photos.
        pool: All listings that may be decided.
        test: Listings to measure on.
        share: Of a round's listings, those drawn at random; the others are chosen. If there are
            both, nothing is calibrated on those chosen.
        seed: Of the first labels and of the draws.
    """
    rng = np.random.default_rng(seed)
    labelled, chosen = set(draw(pool, START, seed).listing_ids), set[str]()
    ids = np.array(sorted(set(pool.listing_ids)))
    found = []
    for each in range(ROUNDS + 1):
        bundle = fit_bundle(
            backbone,
            taxonomy,
            of_listings(pool, labelled, chosen if 0 < share < 1 else set()),
            pool.some(np.empty(0, np.int64)),
            target_precision=TARGET,
            unseen_share=0.0,  # Every listing tested is of a class that was taught.
            seed=seed,
            origin={},
        ).bundle
        found.append({"decisions": each * ROUND, **figures(bundle, test)})
        left = rng.permutation([name for name in ids if name not in labelled]).tolist()
        if each == ROUNDS or len(left) < ROUND:
            break
        drawn = round(share * ROUND)
        instructive = choose(bundle, of_listings(pool, set(left[drawn:])), ROUND - drawn)
        labelled |= {*left[:drawn], *instructive}
        chosen |= set(instructive)
    return found


def of_listings(
    photos: LabelledPhotos, listings: set[str], chosen: set[str] = frozenset()
) -> LabelledPhotos:
    """The photos of some listings, grouped by listing in the order of their ids."""
    rows = np.flatnonzero([name in listings for name in photos.listing_ids])
    some = photos.some(rows).by_listing()
    return some._replace(chosen=np.array([name in chosen for name in some.listing_ids], np.bool_))


def choose(bundle: Bundle, photos: LabelledPhotos, count: int) -> list[str]:
    """Choose listings to learn from, as `jobs.select_reviews` does."""
    features, listings = photos.fused(), list(dict.fromkeys(photos.listing_ids))
    scores = class_probabilities(bundle.head.logits(features), bundle.calibration.temperature)
    return [listings[row] for row in most_instructive(features, margins(scores), count)]


def figures(bundle: Bundle, test: LabelledPhotos) -> dict[str, Any]:
    """Top-1, its mean over categories, and coverage and precision of what is assigned."""
    outcomes = outcomes_of(bundle, test)
    quality = measure_quality(outcomes)
    labels = np.array(test.listing_labels())
    by_category = [outcomes.hit[labels == name].mean() for name in np.unique(labels)]
    return {
        "top1": quality.top1,
        "balanced": float(np.mean(by_category)),
        "coverage": quality.coverage,
        "precision": quality.precision,
    }


def averaged(runs: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Average the runs of all seeds, round by round; a figure that none has is None."""
    rows = []
    for same in zip(*runs, strict=False):
        row: dict[str, Any] = {"decisions": same[0]["decisions"]}
        for name in FIGURES:
            values = [one[name] for one in same if one[name] is not None]
            row[name] = float(np.mean(values)) if values else None
        rows.append(row)
    return rows


def decisions_for(top1: float, curve: Sequence[dict[str, Any]]) -> float | None:
    """Decisions after which a curve reaches a top-1, between two rounds by interpolation."""
    for before, after in pairwise(curve):
        if after["top1"] >= top1:
            share = (top1 - before["top1"]) / (after["top1"] - before["top1"])
            return before["decisions"] + max(0.0, share) * ROUND
    return None


def table(results: Sequence[dict[str, Any]]) -> str:
    """Format the curves as Markdown, and what choosing saves."""
    lines = [
        "| listings of | decisions | top-1: at random | chosen | as select_reviews | decisions for "
        "the same top-1 as at random | mean of categories: at random | as select_reviews | "
        "coverage: at random | chosen | as select_reviews | its precision |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for data in dict.fromkeys(result["data"] for result in results):
        curves = {r["way"]: r["curve"] for r in results if r["data"] == data}
        for random, chosen, mixed in zip(*(curves[way] for way in WAYS), strict=False):
            needed = decisions_for(random["top1"], curves["as select_reviews"])
            cells = [
                *(shown(one["top1"]) for one in (random, chosen, mixed)),
                "-" if needed is None else str(round(needed)),
                *(shown(one["balanced"]) for one in (random, mixed)),
                *(shown(one["coverage"]) for one in (random, chosen, mixed)),
                shown(mixed["precision"]),
            ]
            lines.append(f"| {data} | {random['decisions']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(figure: float | None) -> str:
    """A figure, or a dash if there is none."""
    return "-" if figure is None else f"{figure:.3f}"


def plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot top-1 and coverage over the number of decisions."""
    data = list(dict.fromkeys(result["data"] for result in results))
    figure, axes = plt.subplots(
        2, len(data), figsize=(5 * len(data), 7), layout="constrained", squeeze=False
    )
    for column, name in enumerate(data):
        for row, (figure_name, label) in enumerate(
            (("top1", "top-1"), ("coverage", f"coverage at precision {TARGET:g}"))
        ):
            panel = axes[row, column]
            for result in (r for r in results if r["data"] == name):
                curve = result["curve"]
                panel.plot(
                    [point["decisions"] for point in curve],
                    [point[figure_name] for point in curve],
                    marker="o",
                    label=result["way"],
                )
            panel.set(title=name, xlabel="decisions", ylabel=label)
            panel.grid(alpha=0.3)
            panel.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE, help="as train_head takes it")
    parser.add_argument("--seeds", type=int, default=5, help="draws of the first labels")
    parser.add_argument("--only", nargs="+", choices=TESTS, default=list(TESTS), help="data sets")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    for name in arguments.only:
        if not (arguments.data / name).is_dir():
            parser.error(f"--data {arguments.data}: no folder {name} there")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    plt.switch_backend("agg")
    backbone = resolve_backbone(arguments.backbone)
    results = []
    for name in arguments.only:
        log.info("%s: embedding", name)
        taxonomy, photos = embed_listings(arguments.data / name, backbone)
        pool = photos["train"]
        test = of_categories(photos[TESTS[name]], set(pool.labels))
        for way, share in WAYS.items():
            runs = []
            for seed in range(arguments.seeds):
                log.info("%s, %s, draw %d", name, way, seed)
                runs.append(measure(taxonomy, backbone, pool, test, share=share, seed=seed))
            results.append({"data": name, "way": way, "curve": averaged(runs), "runs": runs})
    path = arguments.results / "active_learning.json"
    record = {
        "backbone": arguments.backbone,
        "digest": backbone.digest,
        "seeds": arguments.seeds,
        "results": results,
        "markdown": table(results),
    }
    write_results(path, record)
    plot(results, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
