"""What the demo ends with: a dozen listings, the totals, the paths and a contact sheet."""

from pathlib import Path
from typing import Any

import pyarrow.dataset as pads
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.contact_sheet import Tile, draw_contact_sheet
from schemas.categories import Decision
from schemas.taxonomy import Taxonomy
from seer_model.photo_reading import read_photo
from seer_model.photos import PhotoLimits, PhotoRejected

__all__ = ["show_result"]

_COLOURS = {
    Decision.ASSIGNED: "#2e9e5b",
    Decision.NEEDS_REVIEW: "#e0a100",
    Decision.REJECTED: "#c8452f",
}
_ROWS = {Decision.ASSIGNED: 6, Decision.NEEDS_REVIEW: 4, Decision.REJECTED: 2}
_TILES = 48
_WIDTH = 120


def show_result(
    output: Path, ds: str, figures: dict[str, Any], taxonomy: Taxonomy, tracking_uri: str
) -> None:
    """Print the end of the demo and write `OUTPUT/contact_sheet.png`.

    Args:
        output: The demo's folder, with `categories` and `manifest` in it.
        ds: The partition.
        figures: The report of `jobs.categorize_listings`.
        taxonomy: That of the labels, where listings have some.
        tracking_uri: MLflow's.
    """
    rows = pads.dataset(output / "categories" / f"ds={ds}").to_table().to_pylist()
    rows.sort(key=lambda row: (-(row["score"] or 0.0), row["listing_id"]))
    photos = pq.read_table(output / "manifest" / f"ds={ds}").to_pylist()
    labels = {row["listing_id"]: row["category_id"] for row in photos}
    sheet = output / "contact_sheet.png"
    draw_contact_sheet(_tiles(rows, photos)).save(sheet)

    console = Console(width=max(_WIDTH, Console().width), soft_wrap=True)
    console.print(_dozen(rows, labels))
    console.print(
        f"{figures['listings']} listings: {figures['assigned']} assigned, "
        f"{_right(rows, labels, taxonomy)}"
        f"{figures['needs_review']} need review, {figures['rejected']} rejected; "
        f"{figures['photos']} photos, {figures['photos_rejected']} of them unusable"
    )
    console.print(
        f"{figures['photos_per_second']} photos a second, Spark and all; "
        f"model {figures['model']}; backbone {figures['backbone']}"
    )
    console.print(f"MLflow run {figures['run_id']} in {tracking_uri}")
    for what, path in {
        "categories": output / "categories",
        "manifest": output / "manifest",
        "embeddings": output / "embeddings",
        "contact sheet": sheet,
    }.items():
        console.print(f"{what:>14}  {path}")


def _right(rows: list[dict[str, Any]], labels: dict[str, str | None], taxonomy: Taxonomy) -> str:
    """How many of the assigned have their label or what is above it, if any has a label."""
    right = [
        row["category_id"] in (label, *taxonomy.ancestors(label))
        for row in rows
        if row["category_id"] and (label := labels[row["listing_id"]]) and label in taxonomy
    ]
    return f"{sum(right)} of them rightly, " if right else ""


def _dozen(rows: list[dict[str, Any]], labels: dict[str, str | None]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("listing", "decision", "category", "score", "reason", "true category"):
        table.add_column(name, overflow="fold")
    for decision, count in _ROWS.items():
        chosen = [row for row in rows if row["decision"] == decision]
        for row in chosen[:: max(1, len(chosen) // count)][:count]:
            score = "" if row["score"] is None else f"{row['score']:.2f}"
            cells = (
                row["listing_id"],
                decision.value,
                _category(row),
                score,
                row["reject_reason"] or "",
                labels.get(row["listing_id"]) or "",
            )
            table.add_row(*map(Text, cells))
    return table


def _category(row: dict[str, Any]) -> str:
    """The path assigned, or the best guess with a question mark."""
    if row["category_path"]:
        return " > ".join(row["category_path"])
    return f"{row['candidates'][0]['category_id']}?" if row["candidates"] else ""


def _short(row: dict[str, Any]) -> str:
    """The same without what is above it, or the decision if there is no guess."""
    if row["category_path"]:
        return str(row["category_path"][-1])
    return _category(row).rpartition("/")[2] or str(row["decision"])


def _tiles(rows: list[dict[str, Any]], photos: list[dict[str, Any]]) -> list[Tile]:
    rejected = {row["listing_id"]: dict(row["image_rejects"] or ()) for row in rows}
    first: dict[str, dict[str, Any]] = {}
    # The first photo that could be used, where there is one.
    for photo in sorted(
        photos, key=lambda p: (p["image_index"] in rejected[p["listing_id"]], p["image_index"])
    ):
        first.setdefault(photo["listing_id"], photo)
    step = max(1, len(rows) // _TILES)
    return [
        Tile(
            photo=_read(first[row["listing_id"]]),
            title=_short(row),
            caption=f"{row['listing_id']}  {row['reject_reason'] or format(row['score'], '.2f')}",
            colour=_COLOURS[Decision(row["decision"])],
        )
        for row in rows[::step][:_TILES]
    ]


def _read(photo: dict[str, Any]) -> bytes | None:
    if photo["image_bytes"] is not None:
        return bytes(photo["image_bytes"])
    try:
        return read_photo(photo["image_uri"] or "", PhotoLimits())
    except PhotoRejected:
        return None
