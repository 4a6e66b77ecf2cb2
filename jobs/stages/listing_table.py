"""Read a table of listings from a CSV: what is unambiguous is accepted, anything else refused."""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.stages.csv_table import column_name, read_csv
from schemas.errors import DataContractError

__all__ = ["Row", "read_label_map", "read_listings", "settle_listings"]

log = logging.getLogger(__name__)

_COLUMNS = ("listing_id", "image_index", "path", "category_id", "split")
_SPLITS = ("train", "val", "test")
_MISTAKEN_FOR_SPLITS = frozenset({"training", "validation", "validate", "valid", "testing"})
_INDEX_DIGITS = 9

Row = dict[str, Any]
"""One photo: `listing_id`, `image_index`, `path`, `category_id`, `split`, `slices` and
`attributes`."""


def read_listings(
    listings: Path,
    images: Path,
    slice_columns: Sequence[str],
    attribute_columns: Sequence[str] = (),
) -> tuple[list[Row], list[str]]:
    """Read and check the table of listings.

    Column names may have capitals, blanks around them, and blanks or hyphens for underscores;
    `category` is read as `category_id` where that is missing.

    Args:
        listings: A CSV with the columns `listing_id`, `path` and, optionally, `image_index`,
            `category_id` and `split`.
        images: The folder that every path must lie in.
        slice_columns: Further columns, for `slices`.
        attribute_columns: Further columns, for `attributes`.

    Returns:
        The rows, with paths relative to `images` and None for empty cells; and the names of the
        columns that were not read.

    Raises:
        SettingsError: The file cannot be opened.
        DataContractError: The file is not a CSV in UTF-8, a column is missing or there twice, or a
            row breaks the contract; names the line and the column.
    """
    slices = {column_name(name): name for name in slice_columns}
    attributes = {column_name(name): name for name in attribute_columns}
    required = ("listing_id", "path", *slices, *attributes)
    header, lines = read_csv(listings, required, [*_COLUMNS, *slices, *attributes])
    indexes: Counter[str] = Counter()
    rows = []
    for line, cells in lines:
        where = f"{listings}, line {line}"
        listing = cells["listing_id"]
        if not listing or not cells["path"]:
            raise DataContractError(f"{where}: listing_id or path is empty")
        rows.append(
            {
                "listing_id": listing,
                "image_index": _index(cells.get("image_index"), indexes[listing], where),
                "path": _path(cells["path"], images, where),
                "category_id": cells.get("category_id") or None,
                "split": _split(cells.get("split", ""), where),
                "slices": _map(slices, cells),
                "attributes": _map(attributes, cells),
            }
        )
        indexes[listing] += 1
    read = {*_COLUMNS, *slices, *attributes}
    return rows, [name for name in header if name and name not in read]


def _map(columns: Mapping[str, str], cells: Mapping[str, str]) -> list[tuple[str, str]] | None:
    """The filled cells of some columns, by the names that were asked for."""
    return [(columns[name], cells[name]) for name in columns if cells[name]] or None


def read_label_map(path: Path, column: str) -> dict[str, str | None]:
    """Read a CSV with the columns `category_id` and `column`: the second by the first.

    Raises:
        SettingsError: The file cannot be opened.
        DataContractError: The file is not a CSV in UTF-8, a column is missing or there twice, or a
            category has two labels.
    """
    label = column_name(column)
    _, lines = read_csv(path, ("category_id", label), ("category_id", label))
    labels: dict[str, str | None] = {}
    for line, cells in lines:
        category, to = cells["category_id"], cells[label] or None
        if labels.setdefault(category, to) != to:
            raise DataContractError(
                f"{path}, line {line}: a line above gives {category!r} another {column}"
            )
    return labels


def settle_listings(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Give all rows of a listing its label and its split, those that any of its rows states.

    A listing with two labels or two splits gets neither, so that it counts on no side.

    Returns:
        The listings with `two_labels` and with `two_splits`.
    """
    stated: dict[str, dict[str, set[str]]] = {
        name: defaultdict(set) for name in ("category_id", "split")
    }
    for row in rows:
        for name, listings in stated.items():
            if row[name] is not None:
                listings[row["listing_id"]].add(row[name])
    torn = {
        name: {listing for listing, values in listings.items() if len(values) > 1}
        for name, listings in stated.items()
    }
    for row in rows:
        listing = row["listing_id"]
        unsettled = any(listing in listings for listings in torn.values())
        for name, listings in stated.items():
            row[name] = None if unsettled else next(iter(listings[listing]), None)
    return {
        "two_labels": sorted(torn["category_id"]),
        "two_splits": sorted(torn["split"]),
    }


def _index(cell: str | None, count: int, where: str) -> int:
    """The photo's position: as stated, else the number of the listing's rows before."""
    index = (cell or "").strip() or str(count)
    if not index.isdecimal() or len(index) > _INDEX_DIGITS:
        raise DataContractError(
            f"{where}: image_index {index[:20]!r} is not a number of at most {_INDEX_DIGITS} digits"
        )
    return int(index)


def _path(cell: str, images: Path, where: str) -> str:
    """The path relative to the folder; `..` is resolved here, not by the file system."""
    if re.match("[A-Za-z][A-Za-z0-9+.-]*://", cell):
        raise DataContractError(
            f"{where}: path {cell[:60]!r} is an address, and this job reads files; write a "
            "manifest with image_uri instead"
        )
    folder = images.absolute()
    relative = Path(os.path.relpath(folder / cell, folder))
    if relative.parts[:1] == ("..",):
        raise DataContractError(f"{where}: path {cell[:60]!r} lies outside --images {images}")
    return relative.as_posix()


def _split(cell: str, where: str) -> str | None:
    name = cell.strip()
    if name.casefold() in _MISTAKEN_FOR_SPLITS:
        raise DataContractError(
            f"{where}: split {name!r}: the jobs know the splits {', '.join(_SPLITS)} by these names"
        )
    return name.casefold() if name.casefold() in _SPLITS else name or None
