"""Colours: how often is what is said of a photo's colours right?

    .venv/bin/python -m benchmarks.colours --data ../shared/data

`colour_labels.csv` has the colours of 200 photos, by looking at each: all that its goods have, and
where two people would name one differently, both names. A colour that is said is right if it is
among them. A colour may also be said only if it has a share of the subject. Colours are those of
the centred square of 224 pixels, as the jobs see it.

Prints a Markdown table and writes it as JSON.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results_file import write_results
from seer_model.photos.colours import Colour, subject_colours
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.pixels import prepare_photo

LABELS = Path(__file__).with_name("colour_labels.csv")
_SIZE = 224
SHARES = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7)


def measure(said: list[list[Colour]], labels: list[list[str]], least: float) -> dict[str, float]:
    """Coverage and precision of the main colour, and precision of the others, above a share."""
    main = [
        colours[0].name in label
        for colours, label in zip(said, labels, strict=True)
        if colours[0].share >= least
    ]
    others = [
        colour.name in label
        for colours, label in zip(said, labels, strict=True)
        for colour in colours[1:]
        if colours[0].share >= least
    ]
    return {
        "least_share": least,
        "coverage": len(main) / len(said),
        "precision": float(np.mean(main)),
        "others": len(others),
        "precision_of_others": float(np.mean(others)) if others else 0.0,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    results = Path(__file__).parent / "results" / "colours.json"
    parser.add_argument("--output", type=Path, default=results)
    options = parser.parse_args()
    with LABELS.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    said = []
    for row in rows:
        photo = (options.data / row["path"]).read_bytes()
        said.append(subject_colours(prepare_photo(photo, _SIZE, PhotoLimits())))
    labels = [row["colours"].split("|") for row in rows]
    figures = [measure(said, labels, least) for least in SHARES]
    wrong = [
        [row["path"], [list(colour) for colour in colours], row["colours"]]
        for row, colours, label in zip(rows, said, labels, strict=True)
        if colours[0].name not in label
    ]
    record: dict[str, Any] = {"photos": len(rows), "by_share": figures, "wrong": wrong}
    record["markdown"] = as_markdown(figures)
    write_results(options.output, record)


def as_markdown(figures: list[dict[str, float]]) -> str:
    """The table of the docs."""
    lines = [
        "| share of the main colour at least | said of photos | right | others said | right |",
        "|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['least_share']:.1f} | {row['coverage']:.2f} | {row['precision']:.3f} "
        f"| {row['others']} | {row['precision_of_others']:.2f} |"
        for row in figures
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
