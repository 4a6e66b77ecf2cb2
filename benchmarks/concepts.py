"""A screener's concepts on real photos: what is found, what is promised, and how long it takes.

    .venv/bin/python -m benchmarks.concepts --data ../shared/data

Kinds of goods stand for what a moderation team looks for: each category and branch with enough
listings is a concept, which the listings below it have and all others lack. Concepts are learned
from a part of the listings and measured on the others (grocery's `test`; of clothing, a third of
the senders): once from all labels, and once from 30 listings with the concept and 600 without it,
with which a team could begin. Recall and precision asked for are 0.95.

Prints a Markdown table and writes it as JSON.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.embedded_listings import SENDER, embed_listings
from benchmarks.measuring import machine_facts, say
from benchmarks.results_file import write_results
from seer_model.backbones.constants import DEFAULT_BACKBONE
from seer_model.tracking.registry import resolve_backbone
from seer_model.training.concepts import LabelledConcepts, fit_concepts, listing_scores
from seer_model.training.labelled import LabelledPhotos

DATA_SETS = ("grocery", "clothing")
TARGET = 0.95
LEAST = 30
"""Listings of a concept to learn from, and to measure on."""
MOST = 0.3
"""Share of the listings that have a concept."""
FEW = {True: 30, False: 600}
"""Listings with and without a concept."""

Numbers = npt.NDArray[np.int64]


def concepts_of(learn: LabelledPhotos, test: LabelledPhotos) -> list[str]:
    """The categories and branches that have listings enough, and not too many."""

    def fitting(photos: LabelledPhotos) -> set[str]:
        labels = photos.listing_labels()
        counts = Counter(branch for label in labels for branch in branches(label))
        return {name for name, n in counts.items() if LEAST <= n <= MOST * len(labels)}

    return sorted(fitting(learn) & fitting(test))


def branches(category: str) -> list[str]:
    """A category and its ancestors."""
    parts = category.split("/")
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def label(photos: LabelledPhotos, names: Sequence[str]) -> LabelledConcepts:
    """Each photo has the concepts of its listing's category."""
    sorted_ = photos.some(np.argsort(photos.listing_ids, kind="stable"))
    of_photo = (branches(category) for category in sorted_.labels)
    shows = np.array([[name in found for name in names] for found in of_photo], np.int8)
    none = np.zeros(len(shows), bool)
    return LabelledConcepts(sorted_.listing_ids, sorted_.vectors, names, shows, none, none)


def learn_and_test(parts: Mapping[str, LabelledPhotos]) -> tuple[LabelledPhotos, LabelledPhotos]:
    """The labelled listings to learn from, and those to measure on."""
    everything = LabelledPhotos(
        [listing for part in parts.values() for listing in part.listing_ids],
        [category for part in parts.values() for category in part.labels],
        np.concatenate([part.vectors for part in parts.values()]),
        pa.concat_arrays([part.slices for part in parts.values()]),
    )
    rows = everything.slices.to_pylist()
    is_test = np.array(
        [split == "test" for split, part in parts.items() for _ in part.labels]
        if "test" in parts
        else [crc32(dict(slices).get(SENDER, "").encode()) % 3 == 0 for slices in rows]
    )
    is_labelled = np.array([bool(category) for category in everything.labels])
    return (
        everything.some(np.flatnonzero(is_labelled & ~is_test)),
        everything.some(np.flatnonzero(is_labelled & is_test)),
    )


def with_few(photos: LabelledConcepts, seed: int) -> LabelledConcepts:
    """The same with the labels of `FEW` listings of each concept alone."""
    rng = np.random.default_rng(seed)
    listing = numbers(photos)
    shows = np.full_like(photos.shows, -1)
    for column in range(len(photos.names)):
        has = listing_scores(photos.shows[:, column].astype(np.float64), listing) > 0
        for value, count in FEW.items():
            of_value = np.flatnonzero(has == value)
            kept = rng.choice(of_value, min(count, len(of_value)), replace=False)
            rows = np.isin(listing, kept)
            shows[rows, column] = photos.shows[rows, column]
    return photos._replace(shows=shows)


def numbers(photos: LabelledConcepts) -> Numbers:
    """The number of each photo's listing."""
    return np.unique(np.array(photos.listing_ids, str), return_inverse=True)[1]


def measure(learn: LabelledConcepts, test: LabelledConcepts) -> dict[str, Any]:
    """Learn, and count on the listings of `test`."""
    started = perf_counter()
    fitted = fit_concepts(learn, target_recall=TARGET, target_precision=TARGET)
    seconds = perf_counter() - started
    if fitted.concepts is None:
        raise SystemExit(f"no concept could be learned: {fitted.left_out}")
    vectors = [vector.tobytes() for vector in test.vectors]
    photos = fitted.concepts.probabilities(vectors).astype(np.float64)
    listing = numbers(test)
    rows = []
    for concept, column in zip(fitted.concepts.concepts, photos.T, strict=True):
        shows = test.shows[:, list(test.names).index(concept.name)]
        has = listing_scores(shows.astype(np.float64), listing) > 0
        scores = listing_scores(column, listing)
        reviewed = scores >= concept.review_at
        blocked = scores >= (np.inf if concept.block_at is None else concept.block_at)
        figures = fitted.figures[concept.name]
        rows.append(
            {
                "concept": concept.name,
                "with_it": int(has.sum()),
                "listings": len(has),
                "learned_with_it": figures["with_it"],
                "recall_shown": figures["recall_labels_missing"] == 0,
                "recall": float(reviewed[has].mean()),
                "reviewed": float(reviewed.mean()),
                "blocks": concept.block_at is not None,
                "blocked": int(blocked.sum()),
                "blocked_right": int(has[blocked].sum()),
                "block_recall": float(blocked[has].mean()),
                "calibration": float(scores.mean() - has.mean()),
            }
        )
    return {"seconds_a_concept": seconds / len(learn.names), "concepts": rows}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE)
    parser.add_argument("--only", nargs="*", default=DATA_SETS, choices=DATA_SETS)
    results = Path(__file__).parent / "results" / "concepts.json"
    parser.add_argument("--output", type=Path, default=results)
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    backbone = resolve_backbone(options.backbone)
    found: list[dict[str, Any]] = []
    for name in options.only:
        say(f"{name}: embedding")
        _, by_split = embed_listings(options.data / name, backbone)
        learn, test = learn_and_test(by_split)
        names = concepts_of(learn, test)
        labelled, measured_on = label(learn, names), label(test, names)
        for labels, given in (("all", labelled), ("few", with_few(labelled, seed=0))):
            say(f"{name}: {len(names)} concepts, {labels} labels")
            found.append({"data": name, "labels": labels, **measure(given, measured_on)})
    write_results(
        options.output,
        {
            "backbone": options.backbone,
            "target": TARGET,
            "machine": machine_facts(),
            "data": found,
            "markdown": as_markdown(found),
        },
    )


def as_markdown(found: Sequence[dict[str, Any]]) -> str:
    """A row a data set and number of labels; means over its concepts, sums of what was blocked."""
    lines = [
        "| data | labels | concepts | listings with one | recall of review | lowest | of shown "
        "recalls, met | reviewed | blocking | precision of it | recall of it | s a concept |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for each in found:
        rows = each["concepts"]
        shown = [row for row in rows if row["recall_shown"]]
        met = sum(row["recall"] >= TARGET for row in shown)
        blocked = sum(row["blocked"] for row in rows)
        right = sum(row["blocked_right"] for row in rows)
        lines.append(
            f"| {each['data']} | {each['labels']} | {len(rows)} "
            f"| {np.mean([row['with_it'] / row['listings'] for row in rows]):.3f} "
            f"| {np.mean([row['recall'] for row in rows]):.3f} "
            f"| {min(row['recall'] for row in rows):.2f} | {met} of {len(shown)} "
            f"| {np.mean([row['reviewed'] for row in rows]):.3f} "
            f"| {sum(row['blocks'] for row in rows)} "
            f"| {right / blocked if blocked else float('nan'):.3f} "
            f"| {np.mean([row['block_recall'] for row in rows if row['blocks']] or [0]):.2f} "
            f"| {each['seconds_a_concept']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
