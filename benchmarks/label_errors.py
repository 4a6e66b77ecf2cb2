"""Wrong labels: how many are found by looking at the most doubtful listings first.

    .venv/bin/python -m benchmarks.label_errors --data ../shared/data

Of all labelled listings of a data set 5 % get another label at random. They are ranked as
`jobs.find_label_errors` does, and the share of the wrong ones is counted among the first as many,
and twice as many. The data sets' own errors count as right. Five draws.

Prints a Markdown table and writes it as JSON.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embedded_listings import embed_listings, of_categories
from benchmarks.results_file import write_results
from seer_model.backbones.constants import DEFAULT_BACKBONE
from seer_model.tracking.registry import resolve_backbone
from seer_model.training.label_errors import confidently_wrong, out_of_fold
from seer_model.training.labelled import LabelledPhotos

DATA_SETS = ("grocery", "clothing", "cells")
SHARE = 0.05
DRAWS = 5


def measure(listings: Sequence[LabelledPhotos], seed: int) -> dict[str, float]:
    """Mix labels up, rank, and count."""
    rng = np.random.default_rng(seed)
    features = np.concatenate([part.fused() for part in listings]).astype(np.float16)
    truth = np.concatenate([part.listing_labels() for part in listings])
    names, right = np.unique(truth, return_inverse=True)
    count = round(SHARE * len(right))
    wrong = rng.choice(len(right), count, replace=False)
    labels = right.copy()
    labels[wrong] = (right[wrong] + rng.integers(1, len(names), count)) % len(names)
    found = out_of_fold(features, labels, classes=len(names), seed=seed)
    order = np.argsort(found.confidence, kind="stable")
    suspects = confidently_wrong(found, labels)
    return {
        "listings": len(right),
        "categories": len(names),
        "wrong": count,
        "found_in_as_many": np.isin(order[:count], wrong).sum() / count,
        "found_in_twice_as_many": np.isin(order[: 2 * count], wrong).sum() / count,
        "probably_wrong": int(suspects.sum()),
        "of_them_wrong": np.isin(np.flatnonzero(suspects), wrong).mean(),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE)
    parser.add_argument("--only", nargs="*", default=DATA_SETS, choices=DATA_SETS)
    results = Path(__file__).parent / "results" / "label_errors.json"
    parser.add_argument("--output", type=Path, default=results)
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    backbone = resolve_backbone(options.backbone)
    rows: list[dict[str, Any]] = []
    for name in options.only:
        _, by_split = embed_listings(options.data / name, backbone)
        labelled = [
            of_categories(photos, set(photos.labels) - {""}) for photos in by_split.values()
        ]
        draws = [measure(labelled, seed) for seed in range(DRAWS)]
        mean = {key: float(np.mean([each[key] for each in draws])) for key in draws[0]}
        rows.append({"data": name, **mean, "draws": draws})
    write_results(
        options.output,
        {"backbone": options.backbone, "data": rows, "markdown": as_markdown(rows)},
    )


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table of the means."""
    lines = [
        "| data | listings | categories | wrong | found in as many looks | in twice as many "
        "| said to be wrong | of them wrong |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['data']} | {row['listings']:.0f} | {row['categories']:.0f} "
        f"| {row['wrong']:.0f} | {row['found_in_as_many']:.2f} "
        f"| {row['found_in_twice_as_many']:.2f} | {row['probably_wrong']:.0f} "
        f"| {row['of_them_wrong']:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
