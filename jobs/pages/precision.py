"""The page of the estimated precision, week by week, as one HTML file."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from jobs.pages.evaluation_plots import as_png, draw_figure
from jobs.pages.templates import render
from seer_model.evaluation.audits import AuditedWeek

__all__ = ["precision_page"]


def precision_page(weeks: Sequence[AuditedWeek], target: float | None) -> str:
    """Render a self-contained page; its policy lets it load nothing.

    Args:
        weeks: The first one first.
        target: The precision aimed at, or None.
    """
    known = [week for week in weeks if week.precision is not None]
    plot = as_png(draw_figure(lambda axes: _plot(axes, known, target))) if known else None
    last = known[-1] if known else None
    return render("precision.html.jinja", weeks=weeks[::-1], last=last, target=target, plot=plot)


def _plot(axes: Axes, weeks: Sequence[AuditedWeek], target: float | None) -> None:
    places = range(len(weeks))
    low, high, precision = (
        np.array([getattr(week, name) for week in weeks], np.float64)
        for name in ("low", "high", "precision")
    )
    axes.vlines(places, low, high, color="#0b6e99", linewidth=2)
    axes.plot(places, precision, marker="o", color="#0b6e99")
    if target is not None:
        axes.axhline(target, color="#999999", linewidth=1, linestyle="--")
        beside = axes.get_yaxis_transform()
        axes.text(1, target, "target", va="center", color="#666666", fontsize=8, transform=beside)
    some = places[:: max(1, len(weeks) // 6)]
    axes.set_xticks(some, [f"{weeks[place].week:%d %b}" for place in some])
    axes.set(xlabel="week from", ylabel="share of the assigned that is right", ylim=(0, 1.02))
