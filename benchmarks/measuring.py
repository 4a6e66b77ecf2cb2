"""Shared by the benchmarks: the clock, table rows, and facts about the machine."""

import os
import platform
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

__all__ = ["Row", "machine_facts", "markdown_table", "measure", "say"]

_WARM_UP = 0.15
"""Share of a measurement spent on warm-up, before the clock starts."""

_FLAGS = ("amx_int8", "amx_bf16", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx512f", "avx2")
_PACKAGES = ("numpy", "openvino", "pillow", "pyarrow", "pyspark", "timm", "torch", "torchvision")

Pieces = Generator[int, None, None]
"""Endless work that yields, after each piece, the number of photos in it."""


def say(line: str) -> None:
    """Print a line of progress to stderr."""
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", file=sys.stderr, flush=True)


def measure(pieces: Pieces, seconds: float) -> float:
    """Measure photos per second in the steady state, from the end of one piece to that of another.

    Args:
        pieces: The work; closed at the end.
        seconds: Duration of the measurement, warm-up included.

    Raises:
        ValueError: The work ended early.
    """
    begun = perf_counter()
    started, photos = 0.0, 0
    try:
        for count in pieces:
            now = perf_counter()
            if started:
                photos += count
                if now - begun >= seconds:
                    return photos / (now - started)
            elif now - begun >= _WARM_UP * seconds:
                started = now
    finally:
        pieces.close()
    raise ValueError("the work came to an end")


@dataclass(frozen=True)
class Row:
    """A row of the table: medians over the rounds.

    Attributes:
        name: What was measured.
        rates: Photos per second, by round.
        ratios: The ratios that the goal is about, by round.
        over: What the ratios are relative to.
        goal: Ratio to reach.
        at_most: Whether the goal is an upper bound.
    """

    name: str
    rates: Sequence[float] = ()
    ratios: Sequence[float] = field(default=(), kw_only=True)
    over: str = field(default="", kw_only=True)
    goal: float | None = field(default=None, kw_only=True)
    at_most: bool = field(default=False, kw_only=True)

    @property
    def rate(self) -> float | None:
        """Median photos per second."""
        return median(self.rates) if self.rates else None

    @property
    def ratio(self) -> float | None:
        """Median ratio."""
        return median(self.ratios) if self.ratios else None

    @property
    def verdict(self) -> str:
        """Whether the goal was met, or by how much it was missed."""
        if self.goal is None or self.ratio is None:
            return ""
        missed = self.ratio / self.goal - 1 if self.at_most else 1 - self.ratio / self.goal
        return "met" if missed <= 0 else f"missed by {missed:.1%}"

    def to_json(self) -> dict[str, Any]:
        """The row as the results file holds it."""
        return {
            "name": self.name,
            "photos_per_second": self.rate,
            "ratio": self.ratio,
            "over": self.over or None,
            "goal": self.goal,
            "at_most": self.at_most,
            "verdict": self.verdict or None,
            "rates": list(self.rates),
            "ratios": list(self.ratios),
        }


def markdown_table(rows: Sequence[Row]) -> str:
    """Format rows as a Markdown table."""
    lines = ["| | photos/s | ratio | over | goal | |", "|---|--:|--:|---|--:|---|"]
    for row in rows:
        rate = "" if row.rate is None else f"{row.rate:,.0f}"
        goal = "" if row.goal is None else f"{'≤' if row.at_most else '≥'} {row.goal:g}"
        lines.append(
            f"| {row.name} | {rate} | {_ratio(row)} | {row.over} | {goal} | {row.verdict} |"
        )
    return "\n".join(lines)


def _ratio(row: Row) -> str:
    """Format the median ratio with its range over the rounds."""
    if row.ratio is None:
        return ""
    if len(row.ratios) == 1:
        return f"{row.ratio:.3g}"
    return f"{row.ratio:.3g} ({min(row.ratios):.3g} to {max(row.ratios):.3g})"


def machine_facts() -> dict[str, Any]:
    """Collect what figures depend on: processor, versions, date."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    flags = facts.get("flags", "").split()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": facts.get("model name", platform.machine()),
        "cores": os.cpu_count(),
        "cpu_flags": [flag for flag in _FLAGS if flag in flags],
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
