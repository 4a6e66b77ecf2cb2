"""Groups: the worst group and the gap between groups, before and after balancing.

    .venv/bin/python -m benchmarks.groups --data ../shared/data --backbone zoo:NAME

Trains heads as `train_head` does, with and without `--balance`, on the frozen features of the
backbone, of the same architecture with random weights, and of EfficientNet-Lite0, and measures
top-1 by listing and by group:

- grocery, trained on `train` and tested on `test`, by brightness and sharpness of the photo: the
  data set does not say in which shop or light a photo was taken;
- clothing, by sender and by children's clothes. Its own `test` lacks classes, so its labelled
  listings are halved by a hash of their ids, and each half is tested with a head trained on the
  other.

Prints a Markdown table and writes it as JSON.
"""

import argparse
import csv
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.label_efficiency import LITE0, Extractor, Photos
from benchmarks.results_file import write_results
from seer_model.backbones.weights import random_backbone
from seer_model.categorizer.scoring import fuse_photos
from seer_model.evaluation.comparison import paired_difference
from seer_model.evaluation.groups import SMALL_SLICE, Rows, rows_by_slice, worst_groups
from seer_model.photos.attributes import MEASURED_SIDE, photo_attributes
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.source import PhotoSource
from seer_model.photos.square import load_square
from seer_model.tracking.registry import resolve_backbone
from seer_model.training.head import train_head

log = logging.getLogger("groups")

SLICES = {"grocery": ("brightness", "sharpness"), "clothing": ("sender_id", "kids")}
VAL_SHARE = 7  # One listing in so many of those to train on.

Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Listings:
    """A data set's labelled listings, and their photos, a listing's one after the other.

    Attributes:
        paths: Of the photos.
        listing: The listing of each photo, int64.
        ids: Of the listings.
        labels: The class of each listing, int64.
        splits: As the data set has them.
        slices: Of each listing, value by name; of its first photo.
    """

    paths: list[Path]
    listing: Ints
    ids: list[str]
    labels: Ints
    splits: list[str]
    slices: list[dict[str, str]]


def read_listings(folder: Path, names: tuple[str, ...]) -> Listings:
    """Read a data set, and measure the first photo of each listing."""
    kids = {row.get("path"): row.get("kids") for row in read_csv(folder / "labels.csv")}
    rows = [row for row in read_csv(folder / "listings.csv") if row["category_id"]]
    rows.sort(key=lambda row: (row["listing_id"], int(row["image_index"])))
    first = {row["listing_id"]: row for row in reversed(rows)}
    ids = sorted(first)
    number = {listing: i for i, listing in enumerate(ids)}
    classes = sorted({row["category_id"] for row in rows})
    slices = []
    for listing in ids:
        row = first[listing] | {"kids": kids[first[listing]["path"]]}
        source = PhotoSource(str(folder / row["path"]), None)
        square = load_square(source, MEASURED_SIDE, PhotoLimits())
        attributes = photo_attributes(square.pixels)
        slices.append({name: found for name in names if (found := (row | attributes)[name])})
    return Listings(
        [folder / row["path"] for row in rows],
        np.array([number[row["listing_id"]] for row in rows]),
        ids,
        np.array([classes.index(first[listing]["category_id"]) for listing in ids]),
        [first[listing]["split"] for listing in ids],
        slices,
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read all rows of a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def folds(listings: Listings, name: str) -> Iterator[tuple[Flags, Flags, Flags]]:
    """Yield which listings to train, to stop and to test on; every tested one only once."""
    splits = np.array(listings.splits)
    if name == "grocery":
        yield splits == "train", splits == "val", splits == "test"
        return
    numbers = np.array([int(hashlib.sha256(i.encode()).hexdigest()[:8], 16) for i in listings.ids])
    half, val = numbers % 2 == 0, numbers // 2 % VAL_SHARE == 0
    for test in (half, ~half):
        yield ~test & ~val, ~test & val, test


def tested(
    listings: Listings, name: str, features: npt.NDArray[np.float16], balance: str | None
) -> tuple[Flags, Flags]:
    """Train and test; returns which listings were tested, and which of them are right."""
    photos = np.bincount(listings.listing)
    fused = fuse_photos(features, photos)
    everywhere = np.zeros(len(listings.ids), np.bool_)
    right = np.zeros(len(listings.ids), np.bool_)
    groups = None if balance is None else group_numbers(listings, balance)
    for train, val, test in folds(listings, name):
        classes = np.unique(listings.labels[train])
        of_class = np.full(listings.labels.max() + 1, -1)
        of_class[classes] = np.arange(len(classes))
        train_rows = train[listings.listing]
        val_rows = (val & (of_class[listings.labels] >= 0))[listings.listing]
        of_photo = of_class[listings.labels][listings.listing]
        head = train_head(
            features[train_rows],
            of_photo[train_rows],
            features[val_rows],
            of_photo[val_rows],
            classes=len(classes),
            groups=None if groups is None else groups[listings.listing][train_rows],
        ).head
        right[test] = head.logits(fused[test]).argmax(axis=1) == of_class[listings.labels[test]]
        everywhere |= test
    return everywhere, right


def group_numbers(listings: Listings, name: str) -> Ints:
    """Number the groups as `fit_bundle` does: small ones together, those without another."""
    values = [slices.get(name) for slices in listings.slices]
    counts = Counter(values[listing] for listing in listings.listing)
    names = [str(v if v is None or counts[v] >= SMALL_SLICE else "few") for v in values]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def measure(
    listings: Listings, name: str, network: str, features: npt.NDArray[np.float16]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each slice of a data set."""
    all_tested, before = tested(listings, name, features, None)
    slices = [
        found for found, is_tested in zip(listings.slices, all_tested, strict=True) if is_tested
    ]
    before = before[all_tested]
    for slice_name in SLICES[name]:
        log.info("%s, %s: balancing %s", network, name, slice_name)
        after = tested(listings, name, features, slice_name)[1][all_tested]
        by_slice = rows_by_slice(
            [{slice_name: s[slice_name]} if slice_name in s else {} for s in slices]
        )
        [worst], [worst_after] = worst_groups(by_slice, before), worst_groups(by_slice, after)
        rows = by_slice[f"{slice_name}={worst.worst}"]
        yield {
            "data": name,
            "slice": slice_name,
            "features": network,
            "listings": len(before),
            "top1": [float(before.mean()), float(after.mean())],
            "change": asdict(paired_difference(after, before)),
            "before": asdict(worst),
            "after": asdict(worst_after),
            "change_of_worst": asdict(paired_difference(after[rows], before[rows])),
            "by_group": by_group(by_slice, before, after),
        }


def by_group(by_slice: Rows, before: Flags, after: Flags) -> dict[str, tuple[int, float, float]]:
    """Listings, and top-1 before and after, of every group that is judged."""
    return {
        group: (len(rows), float(before[rows].mean()), float(after[rows].mean()))
        for group, rows in by_slice.items()
        if len(rows) >= SMALL_SLICE
    }


def table(results: list[dict[str, Any]]) -> str:
    """Format the results as a Markdown table."""

    def interval(found: dict[str, float]) -> str:
        return f"{found['value']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"

    def gap(found: dict[str, Any]) -> str:
        low, high = found["gap"]["low"], found["gap"]["high"]
        return f"{found['gap']['value']:.3f} ({low:+.3f} to {high:+.3f})"

    lines = [
        "| listings | slice | features | top-1 | worst group | its top-1 | gap | balanced: top-1 | "
        "that group | worst group | gap |",
        "|---|---|---|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for r in results:
        before, after = r["before"], r["after"]
        lines.append(
            f"| {r['data']} | {r['slice']} | {r['features']} | {r['top1'][0]:.3f} | "
            f"{before['worst']} ({before['listings']}) | {before['top1']:.3f} | {gap(before)} | "
            f"{interval(r['change'])} | {interval(r['change_of_worst'])} | {after['top1']:.3f} | "
            f"{gap(after)} |"
        )
    return "\n".join(lines)


def embed(extractor: Extractor, listings: Listings) -> npt.NDArray[np.float16]:
    """Embed all photos, as float16, which is what the store holds."""
    no_labels = np.zeros(len(listings.paths), np.int64)
    return extractor.features(Photos(listings.paths, no_labels)).astype(np.float16)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--backbone", required=True, help="as train_head's --backbone")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    for name in SLICES:
        if not (arguments.data / name).is_dir():
            parser.error(f"--data {arguments.data}: no folder {name} there")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    backbone = resolve_backbone(arguments.backbone)
    size, stages = backbone.preprocessing.image_size, backbone.feature_stages
    random = random_backbone(backbone.architecture, size, feature_stages=stages)
    networks = {
        arguments.backbone: backbone,
        f"{backbone.architecture}, random weights": random,
        LITE0: resolve_backbone("lite:0"),
    }
    results = []
    for name, slices in SLICES.items():
        listings = read_listings(arguments.data / name, slices)
        for network, trunk in networks.items():
            log.info("%s, %s: embedding", network, name)
            results += measure(listings, name, network, embed(Extractor(trunk), listings))
    results.sort(key=lambda row: (list(SLICES).index(row["data"]), row["slice"]))
    markdown = table(results)
    identity = {"backbone": arguments.backbone, "digest": backbone.digest}
    record = {**identity, "results": results, "markdown": markdown}
    write_results(arguments.results / "groups.json", record)


if __name__ == "__main__":
    main()
