"""The evaluation page: challenger and champion side by side, as one self-contained HTML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.pages.evaluation_plots import draw_plots
from jobs.pages.templates import jpeg_uri, render
from seer_model.evaluation.comparison import Confusion
from seer_model.evaluation.groups import MUCH_WORSE, SMALL_SLICE

__all__ = ["FIGURES", "Mistake", "evaluation_page", "figures_shown"]

# The most rows of a table; the record has all.
_SLICES = 50
_CATEGORIES = 200
_MISSING = 20
_WORSE = 12
_SMALL = 5

FIGURES = {
    "top1": "the best class is the label",
    "top5": "the label is among the best five",
    "parent": "the best class has the label's parent",
    "coverage": "listings that were assigned a category, of whatever level",
    "exact_coverage": "listings that were assigned an exact class, the finest that the model knows",
    "precision": "of the assigned, the category is the label or an ancestor of it",
    "coverage_at_target": "what one threshold could assign at the challenger's target precision",
    "hierarchical_precision": "categories on the assigned paths that are on the labels' paths",
    "hierarchical_recall": "categories on the labels' paths that are on the assigned paths",
    "calibration_error": "expected difference between a score and the share right at that score",
    "known": "the label is one of the model's classes",
}
"""The figures that every evaluation shows, in order, with their meaning."""

_LESS_IS_BETTER = {"calibration_error"}


@dataclass(frozen=True)
class Mistake:
    """A listing whose best class is wrong.

    Attributes:
        listing_id: Its id.
        score: The score of the wrong class.
        photo: A small photo of it, as JPEG.
    """

    listing_id: str
    score: float
    photo: bytes

    @property
    def image(self) -> str:
        """The photo as a `data:` URI."""
        return jpeg_uri(self.photo)


def evaluation_page(
    evaluation: Mapping[str, Any],
    confusions: Sequence[tuple[Confusion, Sequence[Mistake]]] = (),
    of_worse: Mapping[str, Sequence[Mistake]] | None = None,
) -> str:
    """Render a self-contained page; all names are escaped, and its policy lets it load nothing.

    Args:
        evaluation: As `seer_model.evaluation.record.evaluation_record` returns it.
        confusions: The worst ones, each with examples.
        of_worse: Examples of the groups that are much worse, by group.
    """
    champion = evaluation["champion"]
    return render(
        "evaluation.html.jinja",
        e=evaluation,
        rows=_rows(evaluation),
        verdict=_verdict(evaluation),
        plots=draw_plots(evaluation),
        slices=_slices(evaluation),
        champions_gaps={
            group["slice"]: group["gap"] for group in (champion or {}).get("worst_groups", ())
        },
        of_worse=of_worse or {},
        confusions=confusions,
        least=SMALL_SLICE,
        much=MUCH_WORSE,
        most={
            "slices": _SLICES,
            "categories": _CATEGORIES,
            "missing": _MISSING,
            "worse": _WORSE,
            "small": _SMALL,
        },
    )


def _slices(evaluation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The slices, the small ones of a name as one row."""
    pooled: list[Mapping[str, Any]] = evaluation["pooled_slices"]
    names = {group["group"].partition(":")[0] for group in pooled}
    shown = [
        group
        for group in evaluation["slices"]
        if group["listings"] >= SMALL_SLICE or group["group"].partition("=")[0] not in names
    ]
    return sorted(shown, key=lambda group: -group["listings"]) + pooled


def _rows(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    champion = evaluation["champion"]
    figures = evaluation["challenger"]["figures"]
    return [
        {
            "label": name.replace("_", " ").replace("top", "top-"),
            "challenger": figures.get(name),
            "champion": champion and champion["figures"].get(name),
            "difference": evaluation["differences"].get(name),
            "more_is_better": name not in _LESS_IS_BETTER,
            "meaning": meaning,
        }
        for name, meaning in figures_shown(evaluation).items()
    ]


def figures_shown(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Return `FIGURES`, and those of every level that either model has, with their meaning."""
    models = [evaluation[role] for role in ("challenger", "champion") if evaluation[role]]
    found = sorted({name for model in models for name in model["figures"]})
    meanings = {
        "coverage_level_": "listings that were assigned a category of level {}",
        "level_": "of labels that deep, the best class is right at level {}",
    }
    return FIGURES | {
        name: meaning.format(name.removeprefix(prefix))
        for prefix, meaning in meanings.items()
        for name in found
        if name.startswith(prefix)
    }


def _verdict(evaluation: Mapping[str, Any]) -> str:
    top1 = evaluation["challenger"]["figures"]["top1"]
    if not evaluation["champion"]:
        return f"Top-1 is {top1:.3f}; there is no champion to compare with."
    difference = evaluation["differences"]["top1"]
    comparison = (
        f"top-1 is {top1:.3f} against the champion's "
        f"{evaluation['champion']['figures']['top1']:.3f}, {difference['value']:+.3f} "
        f"({difference['low']:+.3f} to {difference['high']:+.3f})."
    )
    if difference["low"] > 0:
        return f"The challenger is better: {comparison}"
    if difference["high"] < 0:
        return f"The challenger is worse: {comparison}"
    return f"No difference beyond noise: {comparison}"
