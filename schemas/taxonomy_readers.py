"""Read taxonomy files: CSV, Shopify's and Google's format.

- CSV with the header `category_id,category_path` and an optional column `parent_id`; other columns
  are ignored.
- Shopify's `categories.txt`: `gid://shopify/TaxonomyCategory/aa-1 : Apparel > Clothing`, whose id
  is `aa-1`. https://github.com/Shopify/product-taxonomy
- Google's `taxonomy-with-ids.txt`: `1604 - Apparel > Clothing`.
  https://support.google.com/merchants/answer/6324436

Names of a path are joined by ` > `. All three are UTF-8 text and may begin with comment lines
(`# …`); one may give the version, such as `Categories: 2025-08` or `Version: 2021-09-21`.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from schemas.errors import SettingsError, TaxonomyError
from schemas.taxonomy import Category, Taxonomy

__all__ = ["read_taxonomy"]

_VERSION = re.compile(r"#.*(?:categories|version): *(\S+)", re.IGNORECASE)
_SHOPIFY_LINE = re.compile(r"gid://shopify/TaxonomyCategory/([\w-]+)\s+: (.*)")
_GOOGLE_LINE = re.compile(r"([0-9]+) - (.*)")
# A ">" inside a word ("A>B") belongs to a name. One at either end counts, to report an empty name.
_SEPARATOR = re.compile(r"(?:^|(?<=\s))>(?=\s|$)")

_Placed = tuple[str, Category]
"""A category and where it was read: "FILE, line 7"."""


def read_taxonomy(path: str | Path) -> Taxonomy:
    """Read a taxonomy file, and tell its format from its content.

    Args:
        path: A local file.

    Returns:
        The categories in file order. Without a version in the file, the digest makes one.

    Raises:
        SettingsError: The file is missing or cannot be read.
        TaxonomyError: The file is not UTF-8, of an unknown format, malformed or not a tree.
    """
    lines = _read_lines(path)
    start = 0
    while start < len(lines) and _is_remark(lines[start]):
        start += 1
    first = lines[start].strip() if start < len(lines) else ""
    if not first:
        raise TaxonomyError(f"{path}: empty, expected categories")
    if first.startswith("gid://shopify/"):
        placed = _parse_lines(
            lines, _SHOPIFY_LINE, "gid://shopify/TaxonomyCategory/ID : A > B", path
        )
    elif _GOOGLE_LINE.match(first):
        placed = _parse_lines(lines, _GOOGLE_LINE, "ID - A > B", path)
    elif "category_id" in first or "category_path" in first:
        placed = _parse_csv(lines, start, path)
    else:
        raise TaxonomyError(
            f"{path}, line {start + 1}: unknown format, expected a CSV with the header "
            "category_id,category_path, Shopify's categories.txt or Google's taxonomy-with-ids.txt"
        )
    if not placed:
        raise TaxonomyError(f"{path}: a header without categories")
    remarks = [found[1] for line in lines[:start] if (found := _VERSION.match(line))]
    versions = [version for version in remarks if version.isprintable()]
    return Taxonomy(
        [category for _, category in placed],
        version=versions[0] if versions else None,
        places=[place for place, _ in placed],
    )


def _read_lines(path: str | Path) -> list[str]:
    """Lines of a file, with their line endings."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"taxonomy {path} cannot be read: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise TaxonomyError(f"{path}, line {line}: not UTF-8 text; save it as UTF-8") from None
    return io.StringIO(text, newline="").readlines()


def _is_remark(line: str) -> bool:
    """Whether a line is blank or a comment."""
    return not line.strip() or line.startswith("#")


def _parse_lines(
    lines: Sequence[str], pattern: re.Pattern[str], form: str, path: str | Path
) -> list[_Placed]:
    """Read a format of one category a line; `pattern` matches its id and path."""
    placed = []
    for number, line in enumerate(lines, start=1):
        if _is_remark(line):
            continue
        place = f"{path}, line {number}"
        found = pattern.fullmatch(line.strip())
        if not found:
            raise TaxonomyError(f"{place}: malformed line {line.strip()[:80]!r}, expected {form!r}")
        placed.append((place, Category(found[1], _split_path(found[2], place), None)))
    return _with_parents_by_path(placed)


def _parse_csv(lines: Sequence[str], start: int, path: str | Path) -> list[_Placed]:
    """Read a CSV whose header is at `lines[start]`."""
    reader = csv.reader(lines[start:], strict=True)
    placed = []
    header: list[str] = []
    line = start + 1
    try:
        for cells in reader:
            place = f"{path}, line {line}"
            line = start + reader.line_num + 1  # Of the next row: this one may span several.
            if not header:
                header = _csv_header(cells, place)
            elif any(map(str.strip, cells)):
                if len(cells) != len(header):
                    raise TaxonomyError(
                        f"{place}: {len(cells)} cells, expected {len(header)} as in the header; "
                        "put a name that has a comma in double quotes"
                    )
                row = dict(zip(header, map(str.strip, cells), strict=True))
                names = _split_path(row["category_path"], place)
                parent_id = row.get("parent_id") or None
                placed.append((place, Category(row["category_id"], names, parent_id)))
    except csv.Error as error:
        raise TaxonomyError(f"{path}, line {line}: malformed CSV: {error}") from None
    return placed if "parent_id" in header else _with_parents_by_path(placed)


def _csv_header(cells: Sequence[str], place: str) -> list[str]:
    """Column names of a CSV; checks that the ones needed are there, and none twice."""
    header = [cell.strip() for cell in cells]
    for name in ("category_id", "category_path"):
        if name not in header:
            raise TaxonomyError(f"{place}: the header has no column {name}")
    for name in ("category_id", "category_path", "parent_id"):
        if header.count(name) > 1:
            raise TaxonomyError(f"{place}: the header has the column {name} more than once")
    return header


def _split_path(text: str, place: str) -> tuple[str, ...]:
    """The names of a path, none of them empty."""
    names = tuple(name.strip() for name in _SEPARATOR.split(text))
    if not all(names):
        raise TaxonomyError(f"{place}: empty name in category_path {text!r}")
    return names


def _with_parents_by_path(placed: Sequence[_Placed]) -> list[_Placed]:
    """Find each category's parent: the one whose path is its own without the last name."""
    id_of_path = {category.path: category.category_id for _, category in placed}
    result = []
    for place, category in placed:
        above = category.path[:-1]
        if above and above not in id_of_path:
            raise TaxonomyError(
                f"{place}: no category has the path {' > '.join(above)!r}, the parent of "
                f"{category.category_id!r}"
            )
        result.append((place, replace(category, parent_id=id_of_path[above] if above else None)))
    return result
