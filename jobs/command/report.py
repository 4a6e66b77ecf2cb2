"""Report a job's figures: a table for people, JSON for scripts and MLflow."""

import json
from collections.abc import Mapping
from typing import Any

from fsspec.core import url_to_fs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.command import job_run
from seer_model.tracking import runs

__all__ = ["write_report"]

_LONGEST_LIST = 10


def write_report(figures: Mapping[str, Any], path: str | None) -> None:
    """Print figures as a table, and write them as JSON if a path or an fsspec address is given.

    They are also logged as `report.json` to the current MLflow run. If logging to that run failed,
    the figure `tracking_lost` names what was lost first, and why; `lineage_lost` says what the
    OpenLineage backend was not told.
    """
    runs.log_text(json.dumps(figures, indent=2) + "\n", "report.json")
    if failure := runs.logging_failure():
        figures = {**figures, "tracking_lost": failure}
    if lost := job_run.events_lost():
        figures = {**figures, "lineage_lost": "; ".join(lost)}
    job_run.reports(figures)
    table = Table(show_header=False, box=None)
    for name, value in figures.items():
        rows = list(value.values()) if isinstance(value, dict) else value
        if isinstance(rows, list) and rows and isinstance(rows[0], dict):
            continue  # A table, which the job prints itself.
        table.add_row(name.replace("_", " "), Text(_shown(value)))
    Console().print(table)
    if path is not None:
        files, name = url_to_fs(path)
        files.makedirs(files._parent(name), exist_ok=True)
        files.write_text(name, json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, list) and len(value) > _LONGEST_LIST:
        first = ", ".join(map(str, value[:_LONGEST_LIST]))
        return f"{first} and {len(value) - _LONGEST_LIST} more"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
