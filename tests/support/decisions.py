"""What people decided, as rows of the labels table."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.labels import LABELS

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def decision(listing: str, what: str = "category", **columns: Any) -> dict[str, Any]:
    """A decision of Ada's at noon; a category is caps unless told otherwise."""
    return {
        "listing_id": listing,
        "task": "category",
        "decision": what,
        "category_id": "caps" if what == "category" else None,
        "reviewer": "ada",
        "source": "review",
        "taxonomy_version": "1",
        "decided_at": NOON,
        **columns,
    }


def as_table(*rows: dict[str, Any]) -> pa.Table:
    """Decisions to add: all columns but the run's."""
    schema = pa.schema([field for field in LABELS if field.name != "run_id"])
    return pa.Table.from_pylist(list(rows), schema)


def write_decisions(folder: Path, *rows: dict[str, Any]) -> Path:
    """Write decisions as a labels folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(as_table(*rows), folder / "decisions.parquet")
    return folder
