"""An evaluation as a page to read: one HTML file that needs nothing beside it."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader

from jobs.evaluation_plots import draw_plots

__all__ = ["FIGURES", "evaluation_page"]

_WORST = 15

FIGURES = {
    "top1": "the best class is the label",
    "top5": "the label is among the best five",
    "parent": "the best class has the label's parent",
    "coverage": "listings that got a category",
    "precision": "of those, the category is the label or above it",
    "assigned_leaf": "of those, the category is a class and not above one",
    "coverage_at_target": "what one threshold could assign at the challenger's target precision",
    "hierarchical_precision": "categories on the assigned paths that are on the labels' paths",
    "hierarchical_recall": "categories on the labels' paths that are on the assigned paths",
    "calibration_error": "how far scores are from the share that is right",
    "known": "the label is one of the model's classes",
}
"""The figures that are shown, in order, and what each says."""

_LESS_IS_BETTER = {"calibration_error"}


def evaluation_page(evaluation: Mapping[str, Any]) -> str:
    """HTML; names from outside are escaped, and the page may load nothing.

    Args:
        evaluation: As `jobs.evaluation.evaluation_record`.
    """
    environment = Environment(
        loader=PackageLoader("jobs", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    categories = [g for g in evaluation["categories"] if g["confusion"]]
    return environment.get_template("evaluation.html.jinja").render(
        e=evaluation,
        rows=_rows(evaluation),
        verdict=_verdict(evaluation),
        plots=draw_plots(evaluation),
        confusions=sorted(categories, key=lambda g: -g["confusion"][1])[:_WORST],
    )


def _rows(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    champion = evaluation["champion"]
    mine = evaluation["challenger"]["figures"]
    levels = {
        name: f"of labels so deep, the best class is right at level {name.removeprefix('level_')}"
        for name in mine
        if name.startswith("level_")
    }
    return [
        {
            "label": name.replace("_", " ").replace("top", "top-"),
            "challenger": mine.get(name),
            "champion": champion and champion["figures"].get(name),
            "difference": evaluation["differences"].get(name),
            "more_is_better": name not in _LESS_IS_BETTER,
            "meaning": meaning,
        }
        for name, meaning in (FIGURES | levels).items()
    ]


def _verdict(evaluation: Mapping[str, Any]) -> str:
    top1 = evaluation["challenger"]["figures"]["top1"]
    if not evaluation["champion"]:
        return f"Top-1 is {top1:.3f}; there is no champion beside it."
    found = evaluation["differences"]["top1"]
    interval = f"by {found['value']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"
    theirs = f"the champion's {evaluation['champion']['figures']['top1']:.3f}"
    if found["low"] > 0:
        return f"The challenger is better: its top-1, {top1:.3f}, differs from {theirs} {interval}."
    if found["high"] < 0:
        return f"The challenger is worse: its top-1, {top1:.3f}, differs from {theirs} {interval}."
    return (
        "No difference beyond noise: the challenger's top-1, "
        f"{top1:.3f}, differs from {theirs} {interval}."
    )
