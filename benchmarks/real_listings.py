"""Quality on real listings: grocery and clothing, in their own taxonomies and in Shopify's.

    .venv/bin/python -m benchmarks.real_listings --data ../shared/data

For each backbone and data set: builds the manifest, trains a head on `train` and `val`, categorizes
the listings of a split that training did not see, and compares the result with their labels. Prints
a Markdown table and writes JSON. docs/benchmarks.md says where to get the photos.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import build_manifest, categorize_listings, evaluate_challenger, train_head
from seer_model.backbones.constants import DEFAULT_BACKBONE, FLOAT_BACKBONE

DS = "2026-01-01"
COLUMNS = (
    "listings",
    "known",
    "top1",
    "top5",
    "parent",
    "coverage",
    "exact_coverage",
    "precision",
    "calibration_error",
)

COUNTS = (
    *("listings", "assigned", "assigned_by_level", "assigned_exact", "needs_review", "rejected"),
    *("photos", "photos_used"),
)


@dataclass(frozen=True)
class Task:
    """A data set, its taxonomy, the split to categorize, and flags of `train_head`."""

    name: str
    folder: str
    split: str
    taxonomy: str
    label_map: bool = False
    flags: tuple[str, ...] = ()


SHOPIFY = "taxonomy/shopify/dist_en_categories.txt"
GROCERY = ("grocery", "test", "grocery/taxonomy.csv")
ALL_KNOWN = ("--unseen-share", "0")
FINETUNE = ("--finetune", "--finetune-size", "128", "--finetune-degraded", "0.5")
TASKS = (
    Task("grocery", *GROCERY),
    Task("grocery, no new kinds", *GROCERY, flags=ALL_KNOWN),
    Task("grocery, fine-tuned, no new kinds", *GROCERY, flags=(*ALL_KNOWN, *FINETUNE)),
    Task("grocery, Shopify's tree", "grocery", "test", SHOPIFY, label_map=True),
    Task("clothing", "clothing", "extra_train", "clothing/taxonomy.csv"),
    Task("clothing, Shopify's tree", "clothing", "extra_train", SHOPIFY, label_map=True),
)


def run(task: Task, data: Path, work: Path, backbone: str) -> dict[str, Any]:
    """Run the jobs for one task; returns the quality figures and the job's counts."""
    images = data / task.folder
    name = f"{backbone}-{task.name}".replace(" ", "-").replace(",", "").replace(":", "-")
    manifest, bundle = work / name / "manifest", work / name / "bundle"
    common = ["--tracking-uri", f"sqlite:///{work / 'mlflow.db'}"]
    store = ["--embeddings", str(work / "embeddings")]
    mapping = ["--label-map", str(images / "taxonomy.csv")] if task.label_map else []
    call(
        build_manifest.main,
        ["--images", str(images), "--listings", str(images / "listings.csv"), *mapping],
        ["--output", str(manifest), "--ds", DS, *common],
    )
    call(
        train_head.main,
        ["--manifest", str(manifest), "--taxonomy", str(data / task.taxonomy)],
        ["--backbone", backbone, "--output", str(bundle), *task.flags, *store, *common],
    )
    report = work / name / "categorized.json"
    new = work / name / "new"
    call(
        build_manifest.main,
        ["--images", str(images), "--listings", str(images / "listings.csv"), *mapping],
        ["--output", str(new), "--ds", DS, "--split", task.split, *common],
    )
    call(
        categorize_listings.main,
        ["--manifest", str(new), "--ds", DS, "--model", str(bundle)],
        ["--output", str(work / name / "categories"), "--report", str(report), *store, *common],
    )
    evaluation = work / name / "evaluation.json"
    call(
        evaluate_challenger.main,
        ["--manifest", str(new), "--challenger", str(bundle), "--splits", task.split],
        ["--report", str(evaluation), *store, *common],
    )
    figures = json.loads(report.read_text(encoding="utf-8"))
    counts = {name: figures[name] for name in COUNTS}
    quality = json.loads(evaluation.read_text(encoding="utf-8"))["challenger"]
    named = {"backbone": backbone, "task": task.name}
    return {**named, **quality, "listings": counts["listings"], "counts": counts}


def call(job: Any, *parts: list[str]) -> None:
    """Run a job's main; exit with its code if it fails."""
    code = job([argument for part in parts for argument in part])
    if code:
        sys.exit(code)


def main() -> None:
    """Run the tasks and print the table."""
    both = list(dict.fromkeys([DEFAULT_BACKBONE, FLOAT_BACKBONE]))
    names = [task.name for task in TASKS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--backbones", nargs="+", default=both, help="as train_head takes them")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="of the tasks")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.error(f"--data {arguments.data}: no such folder")
    with tempfile.TemporaryDirectory(prefix="seer-bench-") as folder:
        results = [
            run(task, arguments.data, Path(folder), backbone)
            for task in TASKS
            for backbone in arguments.backbones
            if task.name in arguments.only
        ]
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / "real_listings.json"
    path.write_text(json.dumps({"results": results}, indent=2) + "\n", encoding="utf-8")
    columns = " | ".join(name.replace("_", " ") for name in COLUMNS)
    print(f"| listings of | backbone | {columns} |")
    print("|---|---|" + "--:|" * len(COLUMNS))
    for result in results:
        cells = [result.get(name) for name in COLUMNS]
        shown = ["-" if c is None else f"{c:.3f}" if isinstance(c, float) else c for c in cells]
        print(f"| {result['task']} | {result['backbone']} | {' | '.join(map(str, shown))} |")
    print(f"\nWritten to {path}")


if __name__ == "__main__":
    main()
