"""What the demo ends with: the outcome in a sentence, examples, what was written, what to try."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.pages.contact_sheet import Tile, draw_contact_sheet
from schemas.categories import Decision, ReviewReason
from schemas.taxonomy import Taxonomy
from seer_model.photos.fetch import read_photo
from seer_model.photos.limits import PhotoLimits, PhotoRejected

__all__ = ["show_result"]

_ROWS = 10
_TILES = 48
_COMMAND = "    "  # Lines that begin so are for copying, and never wrapped.


class _Outcome(Enum):
    """What became of a listing, and how it is marked: symbol, word, colours on screen and sheet."""

    RIGHT = ("✓", "right", "green", "#2e9e5b")
    ASSIGNED = ("+", "assigned", "green", "#2e9e5b")
    WRONG = ("✗", "wrong", "red", "#c8452f")
    REVIEW = ("?", "to review", "yellow", "#e0a100")
    UNFAMILIAR = ("!", "unfamiliar", "magenta", "#8a4fbf")
    REJECTED = ("-", "rejected", "dim", "#7a828e")

    def __init__(self, symbol: str, word: str, style: str, colour: str) -> None:
        self.symbol, self.word, self.style, self.colour = symbol, word, style, colour


@dataclass(frozen=True)
class _Listing:
    """A categorized listing.

    Attributes:
        row: Its row of the categories.
        outcome: Assigned rightly or wrongly if its true category is known.
        truth: The name of the true category, or empty.
        photo: The row of its first usable photo in the manifest, or of its first.
    """

    row: Mapping[str, Any]
    outcome: _Outcome
    truth: str
    photo: Mapping[str, Any]

    @property
    def category(self) -> list[str]:
        """The path assigned, else the best guess alone, else nothing."""
        if self.row["category_path"]:
            return list(self.row["category_path"])
        return [candidate["category_id"] for candidate in self.row["candidates"][:1]]

    @property
    def score(self) -> str:
        """The score, or why there is none."""
        return self.row["reject_reason"] or f"{self.row['score']:.2f}"


def show_result(
    console: Console,
    output: Path,
    figures: Mapping[str, Any],
    taxonomy: Taxonomy,
    tracking_uri: str,
) -> None:
    """Print the end of the demo and write `OUTPUT/contact_sheet.png`.

    Args:
        console: Where to print.
        output: The demo's folder, with `categories` and `manifest` in it.
        figures: The report of `jobs.categorize_listings`, with the demo's `target_precision` and
            `demo_seconds`.
        taxonomy: The tree of the labels; listings without a label in it have no true category.
        tracking_uri: MLflow's.
    """
    listings = _listings(output, f"ds={figures['ds']}", taxonomy)
    draw_contact_sheet([_tile(one, taxonomy) for one in _choose(listings, _TILES)]).save(
        output / "contact_sheet.png"
    )
    console.print()
    console.print(_sentence(listings, figures), style="bold", markup=False)
    console.print(_examples(_choose(listings, _ROWS), taxonomy))
    for line in _details(output, figures, tracking_uri):
        console.print(line, markup=False, soft_wrap=line.startswith(_COMMAND) or None)


def _listings(output: Path, partition: str, taxonomy: Taxonomy) -> list[_Listing]:
    """Every listing, by outcome and then by score, the highest first."""
    rows = pads.dataset(output / "categories" / partition).to_table().to_pylist()
    photos: dict[str, list[dict[str, Any]]] = {}
    for photo in pq.read_table(output / "manifest" / partition).to_pylist():
        photos.setdefault(photo["listing_id"], []).append(photo)
    listings = []
    for row in rows:
        rejects = dict(row["image_rejects"] or ())
        own = sorted(
            photos[row["listing_id"]],
            key=lambda photo: (photo["image_index"] in rejects, photo["image_index"]),
        )
        label = own[0]["category_id"]
        known = label in taxonomy
        listings.append(
            _Listing(
                row=row,
                outcome=_outcome(row, {label, *taxonomy.ancestors(label)} if known else None),
                truth=taxonomy[label].name if known else "",
                photo=own[0],
            )
        )
    order = list(_Outcome)
    listings.sort(
        key=lambda one: (
            order.index(one.outcome), -(one.row["score"] or 0.0), one.row["listing_id"]
        )
    )  # fmt: skip
    return listings


def _outcome(row: Mapping[str, Any], right: set[str] | None) -> _Outcome:
    """The outcome, given the true category and its ancestors if they are known."""
    if row["decision"] == Decision.REJECTED:
        return _Outcome.REJECTED
    if row["decision"] == Decision.NEEDS_REVIEW:
        is_unfamiliar = row["review_reason"] == ReviewReason.UNFAMILIAR
        return _Outcome.UNFAMILIAR if is_unfamiliar else _Outcome.REVIEW
    if right is None:
        return _Outcome.ASSIGNED
    return _Outcome.RIGHT if row["category_id"] in right else _Outcome.WRONG


def _choose(listings: Sequence[_Listing], count: int) -> list[_Listing]:
    """Choose `count` representative ones: each outcome has its share, evenly over its scores."""
    count = min(count, len(listings))
    groups = [list(group) for _, group in groupby(listings, lambda one: one.outcome)]
    shares = [max(1, round(count * len(group) / len(listings))) for group in groups]
    # Rounding may give some too many or too few in all: the largest group evens it out.
    shares[shares.index(max(shares))] += count - sum(shares)
    return [
        group[int((place + 0.5) * len(group) / share)]
        for group, share in zip(groups, shares, strict=True)
        for place in range(share)
    ]


def _sentence(listings: Sequence[_Listing], figures: Mapping[str, Any]) -> str:
    """The outcome."""
    counts = Counter(one.outcome for one in listings)
    right, wrong = counts[_Outcome.RIGHT], counts[_Outcome.WRONG]
    text = f"{len(listings)} listings: {figures['assigned']} assigned"
    if right + wrong:
        text += f", {right} of them right ({right / (right + wrong):.0%}; "
        text += f"target {figures['target_precision']:.0%})"
    text += f", {figures['assigned_exact']} to an exact class"
    text += f"; {figures['needs_review']} to review"
    if unfamiliar := figures["review_reasons"][ReviewReason.UNFAMILIAR]:
        text += f", {unfamiliar} of them unlike what was taught"
    text += f"; {figures['rejected']} rejected"
    if reasons := figures["reject_reasons"]:
        why = ", ".join(f"{name} {count}" for name, count in sorted(reasons.items()))
        text += f", no photo of theirs being usable ({why})"
    return f"{text}."


def _examples(listings: Sequence[_Listing], taxonomy: Taxonomy) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("outcome", "listing", "category", "score", "true category"):
        table.add_column(name, overflow="fold")
    for one in listings:
        mark = Text(f"{one.outcome.symbol} {one.outcome.word}", one.outcome.style)
        path = " > ".join(one.category)
        if one.outcome in (_Outcome.REVIEW, _Outcome.UNFAMILIAR) and one.category:
            path = f"{_name(one, taxonomy)}?"
        table.add_row(mark, *map(Text, (one.row["listing_id"], path, one.score, one.truth)))
    return table


def _details(output: Path, figures: Mapping[str, Any], tracking_uri: str) -> Iterator[str]:
    """What ran, what was written, what to try next: the lines to print."""
    yield (
        f"{figures['photos']} photos, {figures['photos_rejected']} of them unusable; "
        f"{figures['photos_per_second']} photos a second, Spark and reading their text included; "
        f"the whole demo took {figures['demo_seconds']:.0f} s."
    )
    yield f"Model: {figures['model']}, on {figures['backbone']}."
    yield f"MLflow run: {figures['run_id']}"
    yield ""
    yield f"Written to {output}:"
    yield "  contact_sheet.png         photos of some listings, marked as in the table"
    yield "  screening.html            listings with findings, and why"
    yield "  descriptions.html         photos with their alternative texts"
    yield "  categories/               Parquet, one row a listing"
    yield "  categorize_listings.json  report of the job"
    yield "  demo.log                  the jobs' commands and all that they printed"
    if tracking_uri.endswith("/mlflow.db"):
        yield "  mlflow.db                 MLflow's runs and model versions; to browse them:"
    else:
        yield f"MLflow's runs and model versions are in {tracking_uri}; to browse them:"
    mlflow = Path(sys.executable).with_name("mlflow")
    if mlflow.is_relative_to(Path.cwd()):
        mlflow = mlflow.relative_to(Path.cwd())
    yield f"{_COMMAND}{mlflow} ui --backend-store-uri {tracking_uri}"
    yield ""
    yield "Next:"
    yield "  make demo PHOTOS=folder LISTINGS=csv TAXONOMY=csv   your own photos and labels"
    yield "  make airflow                                        the jobs on a schedule"


def _tile(one: _Listing, taxonomy: Taxonomy) -> Tile:
    name = _name(one, taxonomy)
    if one.outcome is _Outcome.REJECTED or not name:
        name = one.outcome.word
    differs = one.truth and one.truth != name and one.outcome is not _Outcome.RIGHT
    return Tile(
        photo=_read(one.photo),
        title=f"{one.outcome.symbol} {name}",
        caption=f"{one.score}  {f'is {one.truth}' if differs else one.row['listing_id']}",
        colour=one.outcome.colour,
    )


def _name(one: _Listing, taxonomy: Taxonomy) -> str:
    """The category's own name, without those above it."""
    name = one.category[-1] if one.category else ""
    return taxonomy[name].name if name in taxonomy else name


def _read(photo: Mapping[str, Any]) -> bytes | None:
    if photo["image_bytes"] is not None:
        return bytes(photo["image_bytes"])
    try:
        return read_photo(photo["image_uri"] or "", PhotoLimits())
    except PhotoRejected:
        return None
