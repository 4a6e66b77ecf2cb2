"""The end of the demo, from categories and a manifest as the jobs write them."""

import io
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from demo import result
from jobs.pages.contact_sheet import Tile
from schemas.categories import CATEGORIES
from schemas.manifest import MANIFEST
from schemas.taxonomy import Taxonomy
from schemas.taxonomy_readers import read_taxonomy

FIGURES: dict[str, Any] = {
    "ds": "2026-11-28",
    "assigned": 12,
    "assigned_exact": 11,
    "needs_review": 6,
    "rejected": 2,
    "review_reasons": {"unfamiliar": 1, "unsure": 5},
    "reject_reasons": {"truncated": 1, "not_found": 1},
    "photos": 20,
    "photos_rejected": 2,
    "photos_per_second": 5.0,
    "model": "listing-categorizer version 1",
    "backbone": "regnet: zoo",
    "run_id": "0123",
    "target_precision": 0.8,
    "demo_seconds": 90.0,
}


@pytest.fixture
def taxonomy(tmp_path: Path) -> Taxonomy:
    file = tmp_path / "taxonomy.csv"
    rows = ["category_id,category_path", "c,Clothing", "c/b,Clothing > Boot", "c/h,Clothing > Hat"]
    file.write_text("\n".join(rows), "utf-8")
    return read_taxonomy(file)


def categorized(number: int, decision: str, category: str | None, score: float) -> dict[str, Any]:
    names = {"c": ["Clothing"], "c/b": ["Clothing", "Boot"], "c/h": ["Clothing", "Hat"]}
    rejected = decision == "rejected"
    return {
        "listing_id": f"listing-{number:02}",
        "decision": decision,
        "category_id": category,
        "category_path": names[category] if category else None,
        "score": None if rejected else score,
        "candidates": [] if rejected else [{"category_id": "c/b", "score": score}],
        "review_reason": "unsure" if decision == "needs_review" else None,
        "reject_reason": "not_found" if rejected else None,
        "images_used": 0 if rejected else 1,
        "images_rejected": int(rejected),
        "image_rejects": [(0, "not_found")] if rejected else [],
        "decided_by": "model",
        "model_name": "m",
        "model_version": "1",
        "bundle_digest": "d",
        "taxonomy_version": "t",
        "run_id": "0123",
        "categorized_at": datetime(2026, 11, 28, tzinfo=UTC),
    }


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The most confident is wrong; all are boots; a right parent counts as right."""
    rows = [categorized(0, "assigned", "c/h", 0.99), categorized(1, "assigned", "c", 0.98)]
    rows += [categorized(n, "assigned", "c/b", 0.97 - n / 100) for n in range(2, 12)]
    rows += [categorized(n, "needs_review", None, 0.4 - n / 100) for n in range(12, 18)]
    rows[17]["review_reason"] = "unfamiliar"
    rows += [categorized(n, "rejected", None, 0.0) for n in range(18, 20)]
    photos = [
        {"listing_id": row["listing_id"], "image_index": 0, "image_uri": "/no/such/photo",
         "category_id": "c/b", "split": "new"}
        for row in rows
    ]  # fmt: skip
    for name, data, schema in (("categories", rows, CATEGORIES), ("manifest", photos, MANIFEST)):
        folder = tmp_path / name / "ds=2026-11-28"
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(data, schema), folder / "part.parquet")
    return tmp_path


def shown(output: Path, taxonomy: Taxonomy, width: int = 80) -> str:
    screen = io.StringIO()
    console = Console(file=screen, width=width, soft_wrap=True, highlight=False)
    result.show_result(console, output, FIGURES, taxonomy, f"sqlite:///{output}/mlflow.db")
    return screen.getvalue()


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> list[Tile]:
    drawn: list[Tile] = []

    def draw(given: list[Tile]) -> Image.Image:
        drawn.extend(given)
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(result, "draw_contact_sheet", draw)
    return drawn


def test_it_opens_with_the_outcome(output: Path, taxonomy: Taxonomy, tiles: list[Tile]) -> None:
    assert shown(output, taxonomy).strip().splitlines()[0] == (
        "20 listings: 12 assigned, 11 of them right (92%; target 80%), 11 to an exact class; "
        "6 to review, 1 of them unlike what was taught; 2 rejected, no photo of theirs being "
        "usable (not_found 1, truncated 1)."
    )


@pytest.mark.parametrize("width", [80, 120])
def test_examples_are_of_every_outcome_and_not_the_wrong_one_first(
    output: Path, taxonomy: Taxonomy, tiles: list[Tile], width: int
) -> None:
    text = shown(output, taxonomy, width)
    rows = [line for line in text.splitlines() if re.search(r"listing-\d", line)]
    words = [row.split("  ")[0].strip() for row in rows]
    assert words == ["✓ right"] * 5 + ["✗ wrong"] + ["? to review"] * 2 + [
        "! unfamiliar",
        "- rejected",
    ]
    assert all("Boot" in row for row in rows)
    assert max(map(len, rows)) <= width


def test_the_sheet_marks_right_and_wrong_and_names_the_truth(
    output: Path, taxonomy: Taxonomy, tiles: list[Tile]
) -> None:
    shown(output, taxonomy)
    assert len(tiles) == 20
    by_title = {tile.title: tile for tile in tiles}
    assert by_title.keys() == {"✓ Boot", "✓ Clothing", "✗ Hat", "? Boot", "! Boot", "- rejected"}
    assert by_title["✗ Hat"].caption == "0.99  is Boot"
    assert by_title["- rejected"].caption.startswith("not_found")
    assert len({tile.colour for tile in tiles}) == 5


def test_without_a_true_category_nothing_is_right_or_wrong(
    output: Path, tmp_path: Path, tiles: list[Tile]
) -> None:
    other = tmp_path / "other.csv"
    other.write_text("category_id,category_path\nx,Other\n", "utf-8")
    text = shown(output, read_taxonomy(other))
    assert "of them right" not in text
    assert "+ assigned" in text
    assert not {tile.title[0] for tile in tiles} & {"✓", "✗"}
