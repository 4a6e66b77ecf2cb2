"""The plot of `benchmarks.throughput`."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.spark_job import JobRun
from benchmarks.suite import Measured, slope

__all__ = ["plot_throughput"]


def plot_throughput(rates: dict[str, float], measured: Measured, path: Path) -> None:
    """Draw photos per second of the contenders, and time and memory by job size, as PNG."""
    plt.switch_backend("agg")
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    _bars(left, rates)
    left.set_title(f"Steady state on {measured.cores} cores")
    _growth(right, measured.rounds[0].warm, measured.rounds[0].runs)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _bars(axes: Axes, rates: dict[str, float]) -> None:
    bars = axes.barh(list(rates), list(rates.values()))
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates.values()], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("photos a second")


def _growth(axes: Axes, warm: JobRun, runs: Sequence[JobRun]) -> None:
    counts = [f"{run.photos:,}" for run in runs]
    millis = [1000 / slope(warm, run) for run in runs]
    mebibytes = [run.peak / 2**20 for run in runs]
    axes.plot(counts, millis, marker="o", label="time a photo")
    axes.set(xlabel="photos of the job", ylabel="ms a photo, without the start")
    axes.set_ylim(0, 1.3 * max(millis))
    memory = axes.twinx()
    memory.plot(counts, mebibytes, marker="s", color="C1", label="memory")
    memory.set(ylabel="MiB, greatest peak of a Python worker")
    memory.set_ylim(0, 1.6 * max(*mebibytes, 1))
    axes.set_title("Growth")
    lines = [*axes.get_lines(), *memory.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], loc="lower right")
