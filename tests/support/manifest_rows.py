"""Rows of a manifest, ids of listings that are hard to carry, and types of the fixtures."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

DS = "2026-11-25"
BY_RUN = ["run_id", "categorized_at"]

Categorize = Callable[..., dict[str, Any]]
DrawPhoto = Callable[..., bytes]
ReadCategories = Callable[[Path], pa.Table]
Rows = list[dict[str, Any]]
WriteManifest = Callable[..., Path]

ODD_IDS = [
    "",
    " ",
    "a",
    "a ",
    "A",
    unicodedata.normalize("NFC", "crème brûlée"),
    unicodedata.normalize("NFD", "crème brûlée"),
    "沙发🛋️",
    "it's",
    'a "quoted" one',
    "back\\slash, comma; and %20",
    "two\nlines\tand a tab",
    "../../etc/passwd",
    "null",
    "nul\0byte",
]


def row(listing: str | None, index: int | None = 0, **columns: object) -> dict[str, Any]:
    return {"listing_id": listing, "image_index": index, **columns}
