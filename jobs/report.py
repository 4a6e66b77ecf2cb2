"""The figures a job ends with: a table for people, JSON for scripts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["write_report"]


def write_report(figures: Mapping[str, Any], path: Path | None) -> None:
    """Print figures as a table, and write them as JSON where a path is given."""
    table = Table(show_header=False, box=None)
    for name, value in figures.items():
        shown = (
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        )
        text = f"{shown:.3f}" if isinstance(shown, float) else str(shown)
        table.add_row(name.replace("_", " "), Text(text))
    Console().print(table)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
