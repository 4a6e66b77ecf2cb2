"""What an evaluation gives: for MLflow, for the screen, and for the report."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from rich.table import Table

from jobs.stages.store.base import EmbeddingStore

__all__ = ["Evaluated", "OpenStore"]

OpenStore = Callable[[str], AbstractContextManager[EmbeddingStore]]
"""Opens the store of a backbone, by its digest."""


class Evaluated(NamedTuple):
    """An evaluation.

    Attributes:
        record: JSON-serializable, with the `figures` of `challenger` and `champion`.
        page: Self-contained HTML.
        table: To print.
        summary: The report.
        more: Further figures to log, by name.
    """

    record: Mapping[str, Any]
    page: str
    table: Table
    summary: dict[str, Any]
    more: Mapping[str, Any] = {}
