"""Read a CSV whose columns have names, as spreadsheets write it."""

import csv
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from schemas.errors import DataContractError, SettingsError

__all__ = ["column_name", "read_csv"]

log = logging.getLogger(__name__)

_LABEL, _ALSO_LABEL = "category_id", "category"


def read_csv(
    path: Path, required: Sequence[str], read: Sequence[str]
) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """Read a CSV whose first line names its columns.

    Column names may have capitals, blanks around them, and blanks or hyphens for underscores;
    `category` is read as `category_id` where that is missing.

    Args:
        path: The file.
        required: Columns that must be there.
        read: Columns that must not be there twice.

    Returns:
        The column names, as `column_name` gives them, and for each line its number and its cells
        by column.

    Raises:
        SettingsError: The file cannot be opened.
        DataContractError: The file is not a CSV in UTF-8, or a column is missing or there twice;
            while the lines are read, too.
    """
    lines = _lines(path)
    _, names = next(lines, (0, []))
    header = [column_name(name) for name in names]
    if _LABEL not in header and _ALSO_LABEL in header:
        header[header.index(_ALSO_LABEL)] = _LABEL
        log.info("%s: the column %s is read as %s", path, _ALSO_LABEL, _LABEL)
    if missing := [name for name in required if name not in header]:
        raise DataContractError(f"{path}: no column {', '.join(missing)}")
    for name in read:
        if header.count(name) > 1:
            raise DataContractError(f"{path}: {header.count(name)} columns are called {name}")
    return header, _by_column(path, header, lines)


def _by_column(
    path: Path, header: list[str], lines: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, dict[str, str]]]:
    for line, cells in lines:
        if len(cells) < len(header) or any(cells[len(header) :]):
            raise DataContractError(
                f"{path}, line {line}: {len(cells)} cells for {len(header)} columns; a comma or a "
                "line break within a cell takes quotes around it"
            )
        yield line, dict(zip(header, cells, strict=False))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines that hold something, and their numbers."""
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    with file:
        reader = csv.reader(file, skipinitialspace=True)
        try:
            for cells in reader:
                if any(cells):
                    yield reader.line_num, cells
        except UnicodeDecodeError as error:
            raise DataContractError(f"{path}: not UTF-8 text; save it as UTF-8") from error
        except csv.Error as error:
            raise DataContractError(f"{path}, line {reader.line_num}: {error}") from error


def column_name(name: str) -> str:
    """A column's name without capitals, with underscores for blanks and hyphens."""
    return re.sub(r"[\s-]+", "_", name.strip().casefold())
