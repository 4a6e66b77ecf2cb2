"""Descriptions: how often each kind of statement is right, and of how many photos it is made.

    .venv/bin/python -m benchmarks.descriptions --data ../shared/data

Through the jobs, with the targets of their defaults, but where it is said:

- *drawn*: the demo's samples, whose split `new` is described, with the demo's target of 0.8;
- *grocery*: taught its `train` and `val`, its `test` is described; the attribute `contents` of
  packages is the kind of goods in them, milk or juice (`--unseen-share 0`: it has no other value);
- *clothing*: taught `train` and `val`, `extra_train` is described, of whose listings most are of
  kinds that were not taught.

A category is right if it is the label or above it. *text*: lines are written on photos of both data
sets, of several heights, and a statement is right if it is the line. What the photos show besides,
such as packages, counts as wrong, so the precision is a lower bound. Colours: see
`benchmarks.colours`.

Prints a Markdown table and writes it as JSON.
"""

import argparse
import csv
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.results_file import write_results
from demo.samples import draw_sample_listings
from jobs import build_manifest, describe_listings, train_head
from schemas.descriptions import StatementKind
from seer_model.backbones.constants import DEFAULT_BACKBONE
from seer_model.describer.statements import photo_statements
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.source import PhotoSource
from seer_model.photos.square import load_whole
from seer_model.screener.text_reader import TextReader
from tests.support.written_photos import write_on

DS = "2026-01-01"
WRITTEN = 40
"""Photos of each data set and height."""
HEIGHTS = (0.04, 0.08)
LINES = ("SALE", "Made in Italy", "Size 42", "Neu mit Etikett", "100 % algodón", "Nr. 17 B")

Row = dict[str, str]


@dataclass(frozen=True)
class Task:
    """Listings to teach and to describe.

    Attributes:
        name: In the table.
        folder: Has `listings.csv`, `taxonomy.csv` and the photos.
        split: What is described.
        attribute: Its name, the value of a listing's row, and the categories that it applies to.
        flags: Of the training of the categories.
    """

    name: str
    folder: Path
    split: str
    attribute: tuple[str, Callable[[Row], str], list[str]] | None = None
    flags: tuple[str, ...] = ()


def contents(row: Row) -> str:
    """What is in a package of groceries, from its category."""
    parts = row["category_id"].split("/")
    return parts[2] if parts[1:2] == ["packages"] else ""


def tasks(data: Path, work: Path) -> Iterator[Task]:
    """The three tasks; draws the samples."""
    draw_sample_listings(work / "samples", 640, processes=os.cpu_count() or 1)
    as_demo = ("--target-precision", "0.8", "--unseen-share", "0.05")
    yield Task("drawn", work / "samples", "new", flags=as_demo)
    attribute = ("contents", contents, ["grocery/packages"])
    yield Task("grocery", data / "grocery", "test", attribute)
    yield Task("clothing", data / "clothing", "extra_train")


def run(task: Task, work: Path, backbone: str) -> list[dict[str, Any]]:
    """Teach, describe, and compare with the truth; returns a row a kind of statement."""
    work.mkdir()
    with (task.folder / "listings.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = []
    if task.attribute is not None:
        name, value, _ = task.attribute
        columns = ["--attribute-column", name]
        for row in rows:
            row[name] = value(row)
    listings = work / "listings.csv"
    with listings.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for row in rows if row["category_id"])
    common = ["--tracking-uri", f"sqlite:///{work / 'mlflow.db'}"]
    store = ["--embeddings", str(work / "embeddings")]
    images = ["--images", str(task.folder), "--listings", str(listings), "--ds", DS, *columns]
    call(build_manifest.main, [*images, "--output", str(work / "all"), *common])
    new = ["--output", str(work / "new"), "--split", task.split]
    call(build_manifest.main, [*images, *new, *common])
    taught = ["--manifest", str(work / "all"), "--backbone", backbone, *store, *common]
    tree = ["--taxonomy", str(task.folder / "taxonomy.csv"), "--output", str(work / "bundle")]
    call(train_head.main, [*taught, *tree, *task.flags])
    attributes = []
    if task.attribute is not None:
        name, _, categories = task.attribute
        limits = [flag for each in categories for flag in ("--attribute-categories", each)]
        output = ["--output", str(work / name), "--unseen-share", "0"]
        call(train_head.main, [*taught, "--attribute", name, *limits, *output])
        attributes = ["--attributes", str(work / name)]
    described = ["--output", str(work / "descriptions"), "--without-text", *store, *common]
    new = ["--manifest", str(work / "new"), "--ds", DS, "--model", str(work / "bundle")]
    call(describe_listings.main, [*new, *attributes, *described])
    return compare(task, work)


def compare(task: Task, work: Path) -> list[dict[str, Any]]:
    """Compare what was said with the manifest, photo by photo."""
    truth = {
        (row["listing_id"], row["image_index"]): row
        for row in pq.read_table(work / "new" / f"ds={DS}").to_pylist()
    }
    described = pads.dataset(work / "descriptions" / f"ds={DS}").to_table().to_pylist()
    readable = [row for row in described if row["reject_reason"] is None]
    right: dict[str, list[bool]] = {StatementKind.CATEGORY: [], StatementKind.ATTRIBUTE: []}
    applicable = 0
    for row in readable:
        known = truth[row["listing_id"], row["image_index"]]
        own = dict(known["attributes"] or ())
        applicable += bool(own)
        for each in row["statements"]:
            if each["kind"] == StatementKind.CATEGORY:
                above = f"{known['category_id']}/".startswith(f"{each['value']}/")
                right[StatementKind.CATEGORY].append(above)
            if each["kind"] == StatementKind.ATTRIBUTE:
                name, _, value = each["value"].partition("=")
                right[StatementKind.ATTRIBUTE].append(own.get(name) == value)
    found = [as_row(task.name, "category", right[StatementKind.CATEGORY], len(readable))]
    if task.attribute is not None:
        label = f"attribute `{task.attribute[0]}`"
        found.append(as_row(task.name, label, right[StatementKind.ATTRIBUTE], applicable))
    return found


def as_row(data: str, statement: str, right: Sequence[bool], photos: int) -> dict[str, Any]:
    """A row of the table."""
    return {
        "data": data,
        "statement": statement,
        "photos": photos,
        "said": len(right),
        "precision": float(np.mean(right)) if right else None,
    }


def texts(folders: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Write lines on photos, read them, and compare what would be said."""
    reader, limits = TextReader(threads=os.cpu_count() or 1), PhotoLimits()
    for folder in folders:
        with (folder / "listings.csv").open(encoding="utf-8") as file:
            paths = [row["path"] for row in csv.DictReader(file)]
        for place, height in enumerate(HEIGHTS):
            chosen = np.random.default_rng(place).choice(len(paths), WRITTEN, replace=False)
            right, found = [], 0
            for number, index in enumerate(chosen):
                line = LINES[number % len(LINES)]
                with Image.open(folder / paths[index]) as image:
                    data = write_on(image.convert("RGB"), line, height, number)
                pixels = load_whole(PhotoSource(None, data), reader.short_side, limits)
                lines = [each._asdict() for each in reader.read(pixels)]
                photo = {"text": {"lines": lines}}
                said = [each.value for each in photo_statements(None, [], photo, 1, 1)]
                right += [plain(each) == plain(line) for each in said]
                found += any(plain(each) == plain(line) for each in said)
            label = f"text, {height:.0%} of the short side"
            yield {**as_row(folder.name, label, right, WRITTEN), "found": found}


def plain(line: str) -> str:
    """A line without blanks, in small letters."""
    return "".join(line.split()).casefold()


def call(job: Callable[[list[str]], int], argv: list[str]) -> None:
    """Run a job's main; exit with its code if it fails."""
    if code := job(argv):
        sys.exit(code)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE)
    results = Path(__file__).parent / "results" / "descriptions.json"
    parser.add_argument("--output", type=Path, default=results)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="seer-bench-") as folder:
        work = Path(folder)
        for task in tasks(options.data, work):
            rows += run(task, work / task.name, options.backbone)
    rows += texts([options.data / name for name in ("grocery", "clothing")])
    record = {"backbone": options.backbone, "rows": rows, "markdown": as_markdown(rows)}
    write_results(options.output, record)


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table of the docs; the coverage of a text is the share of lines that are said."""
    lines = ["| photos | statement | of | coverage | precision |", "|---|---|--:|--:|--:|"]
    for row in rows:
        coverage = row.get("found", row["said"]) / max(row["photos"], 1)
        precision = "-" if row["precision"] is None else f"{row['precision']:.3f}"
        lines.append(
            f"| {row['data']} | {row['statement']} | {row['photos']} | {coverage:.2f} "
            f"| {precision} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
