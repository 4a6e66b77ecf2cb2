"""The figures a job ends with: a table for people, JSON for scripts and for MLflow."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from seer_model import tracking

__all__ = ["write_report"]


def write_report(figures: Mapping[str, Any], path: Path | None) -> None:
    """Print figures as a table, and write them as JSON where a path is given.

    They are also logged, as `report.json`, to the current MLflow run. If that run lost something
    that was to be logged, `tracking_lost` among the figures says what was lost first, and why.
    """
    tracking.log_text(json.dumps(figures, indent=2) + "\n", "report.json")
    if lost := tracking.tracking_lost():
        figures = {**figures, "tracking_lost": lost}
    table = Table(show_header=False, box=None)
    for name, value in figures.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            continue  # Rows, which the job shows as a table of its own.
        shown = (
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        )
        text = f"{shown:.3f}" if isinstance(shown, float) else str(shown)
        table.add_row(name.replace("_", " "), Text(text))
    Console().print(table)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
