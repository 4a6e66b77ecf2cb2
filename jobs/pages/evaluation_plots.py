"""Plots of evaluations: for the page as PNG data URIs, for a training as figures."""

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from seer_model.evaluation.metrics import measure_quality
from seer_model.evaluation.outcomes import Outcomes
from seer_model.evaluation.record import reliability, risk_coverage

__all__ = ["as_png", "draw_figure", "draw_plots", "training_plots"]

_COLOURS = {"challenger": "#0b6e99", "champion": "#c2701e", "val": "#0b6e99"}
_SIZE = (5.2, 3.6)
_DPI = 110
_COMPARED = ("top1", "top5", "parent", "coverage", "exact_coverage", "precision",
             "hierarchical_precision", "hierarchical_recall", "calibration_error")  # fmt: skip

Models = Mapping[str, Mapping[str, Any]]


def draw_plots(evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    """Draw the plots.

    Args:
        evaluation: As `seer_model.evaluation.record.evaluation_record` returns it.

    Returns:
        For each plot its `title` and its `image`, a PNG as a `data:` URI.
    """
    models = {role: evaluation[role] for role in ("challenger", "champion") if evaluation[role]}
    target = evaluation["challenger"]["target_precision"]
    plots: list[tuple[str, Callable[[Axes], None]]] = [
        (
            "Reliability: is a score of 0.8 right 8 times in 10?",
            lambda axes: _reliability(axes, models),
        ),
        ("Precision by coverage", lambda axes: _risk_coverage(axes, models, target)),
        ("Accuracy by level of the taxonomy", lambda axes: _levels(axes, models)),
    ]
    if evaluation["differences"]:
        differences = evaluation["differences"]
        title = "Challenger minus champion, 95 % intervals"
        plots.append((title, lambda axes: _differences(axes, differences)))
    return [{"title": title, "image": as_png(draw_figure(draw))} for title, draw in plots]


def training_plots(outcomes: Outcomes, target_precision: float) -> dict[str, Figure]:
    """Draw reliability, and precision by coverage, of a model on labelled listings."""
    quality = measure_quality(outcomes)
    model = {
        "figures": quality.figures(),
        "reliability": reliability(outcomes),
        "risk_coverage": risk_coverage(outcomes),
    }
    models = {"val": model}
    return {
        "reliability": draw_figure(lambda axes: _reliability(axes, models)),
        "precision_by_coverage": draw_figure(
            lambda axes: _risk_coverage(axes, models, target_precision)
        ),
    }


def draw_figure(draw: Callable[[Axes], None]) -> Figure:
    """A figure with one plot."""
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    return figure


def as_png(figure: Figure) -> str:
    """A figure as a `data:` URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _reliability(axes: Axes, models: Models) -> None:
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--")
    for role, model in models.items():
        bins = model["reliability"]
        error = model["figures"]["calibration_error"]
        axes.plot(
            [b["score"] for b in bins],
            [b["right"] for b in bins],
            marker="o",
            color=_COLOURS[role],
            label=f"{role}: error {error:.3f}",
        )
    axes.set(xlabel="mean score of the best class", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False)


def _risk_coverage(axes: Axes, models: Models, target: float) -> None:
    axes.axhline(target, color="#999999", linewidth=1, linestyle="--")
    axes.text(1, target, "target", ha="right", va="bottom", color="#666666", fontsize=8)
    for role, model in models.items():
        curve = np.reshape(model["risk_coverage"], (-1, 2))  # Empty if no photo was usable.
        axes.plot(curve[:, 0], curve[:, 1], color=_COLOURS[role], label=role)
        figures = model["figures"]
        if "precision" in figures:
            point = (figures["coverage"], figures["precision"])
            axes.plot(*point, marker="o", color=_COLOURS[role], linestyle="none")
    axes.set(
        xlabel="share of listings assigned (dot: with the model's thresholds)",
        ylabel="share of those right",
        xlim=(0, 1.01),
        ylim=(0, 1.02),
    )
    axes.legend(frameon=False, loc="lower right")


def _levels(axes: Axes, models: Models) -> None:
    width = 0.8 / len(models)
    for i, (role, model) in enumerate(models.items()):
        levels = [v for k, v in model["figures"].items() if k.startswith("level_")]
        places = [n + 1 + (i - (len(models) - 1) / 2) * width for n in range(len(levels))]
        axes.bar(places, levels, width, color=_COLOURS[role], label=role)
        axes.set_xticks(range(1, len(levels) + 1))
    axes.set(xlabel="level, from the top", ylabel="share right", ylim=(0, 1))
    axes.legend(frameon=False)


def _differences(axes: Axes, differences: Mapping[str, Mapping[str, float]]) -> None:
    names = [name for name in reversed(_COMPARED) if name in differences]
    for i, name in enumerate(names):
        d = differences[name]
        axes.plot([d["low"], d["high"]], [i, i], color=_COLOURS["challenger"], linewidth=2)
        axes.plot(d["value"], i, marker="o", color=_COLOURS["challenger"])
    axes.axvline(0, color="#999999", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.locator_params(axis="x", nbins=4)  # Labels such as -0.0010 are wide: more would overlap.
