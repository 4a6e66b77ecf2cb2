"""Report a job's figures: a table for people, JSON for scripts and MLflow."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from seer_model.tracking import runs

__all__ = ["write_report"]


def write_report(figures: Mapping[str, Any], path: Path | None) -> None:
    """Print figures as a table, and write them as JSON if a path is given.

    They are also logged as `report.json` to the current MLflow run. If logging to that run failed,
    the figure `tracking_lost` names what was lost first, and why.
    """
    runs.log_text(json.dumps(figures, indent=2) + "\n", "report.json")
    if failure := runs.logging_failure():
        figures = {**figures, "tracking_lost": failure}
    table = Table(show_header=False, box=None)
    for name, value in figures.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            continue  # A table, which the job prints itself.
        shown = (
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        )
        text = f"{shown:.3f}" if isinstance(shown, float) else str(shown)
        table.add_row(name.replace("_", " "), Text(text))
    Console().print(table)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
