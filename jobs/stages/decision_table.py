"""Read decisions from a CSV: labels known elsewhere, or rules of the team."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.stages.csv_table import read_csv
from schemas.errors import DataContractError, SettingsError
from schemas.labels import LABELS, LabelDecision, LabelSource

__all__ = ["read_decision_table"]

_TIMES = ("decided_at", "expires_at")
_COLUMNS = ("listing_id", "decision", "category_id", "reviewer", "selection", "reason", *_TIMES)


def read_decision_table(
    path: Path, *, task: str, source: LabelSource, reviewer: str | None, taxonomy_version: str
) -> pa.Table:
    """Read a CSV of decisions.

    Columns: `listing_id`; `category_id`, `decision` (`category` where there is a category) or both;
    and optionally `reviewer`, `selection`, `reason`, `decided_at` and `expires_at`, times in ISO
    8601, in UTC unless they say otherwise.

    Args:
        path: The file.
        task: What was decided.
        source: Where the decisions come from.
        reviewer: Who decided where the file does not say; None for the file's name.
        taxonomy_version: Of the taxonomy decided in.

    Returns:
        The columns of `LABELS` but `run_id`. Where the file does not say when, it is when the file
        was last changed: so the same file gives the same decisions.

    Raises:
        SettingsError: The file cannot be opened.
        DataContractError: A column is missing or there twice, or a line breaks the contract; names
            the line.
    """
    header, lines = read_csv(path, ("listing_id",), _COLUMNS)
    if not {"decision", "category_id"} & set(header):
        raise DataContractError(f"{path}: no column category_id or decision")
    try:
        changed_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    rows = []
    for line, cells in lines:
        where = f"{path}, line {line}"
        found: dict[str, Any] = {name: cells.get(name, "").strip() or None for name in _COLUMNS}
        found["listing_id"] = cells["listing_id"]  # Blanks in an id are part of it.
        if not found["listing_id"]:
            raise DataContractError(f"{where}: listing_id is empty")
        if found["decision"] is None and found["category_id"]:
            found["decision"] = LabelDecision.CATEGORY.value
        for name in _TIMES:
            found[name] = _time(found[name], name, where)
        rows.append(
            found
            | {
                "task": task,
                "reviewer": found["reviewer"] or reviewer or path.name,
                "source": source.value,
                "taxonomy_version": taxonomy_version,
                "decided_at": found["decided_at"] or changed_at,
            }
        )
    return _as_table(rows)


def _time(cell: str | None, name: str, where: str) -> datetime | None:
    if cell is None:
        return None
    try:
        time = datetime.fromisoformat(cell)
    except ValueError:
        raise DataContractError(
            f"{where}: {name} {cell[:40]!r} is not a time such as 2026-11-25T14:30"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _as_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    fields = [field.with_nullable(True) for field in LABELS if field.name != "run_id"]
    return pa.Table.from_pylist(list(rows), pa.schema(fields))
