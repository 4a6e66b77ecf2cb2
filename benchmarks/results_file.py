"""Where a benchmark leaves its results."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["write_results"]


def write_results(path: Path, record: Mapping[str, Any]) -> None:
    """Write a benchmark's record as JSON, and print its `markdown`; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(record["markdown"])
    print(f"\nWritten to {path}")
