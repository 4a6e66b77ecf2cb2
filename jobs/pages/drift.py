"""The drift page: two days' categories and scores side by side, as HTML."""

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.pages.templates import render
from seer_model.evaluation.drift import SCORE_BINS

__all__ = ["drift_page"]

_PLURALS = {
    "category": "categories",
    "top_level": "top categories",
    "decision": "decisions",
    "review_reason": "review reasons",
    "reject_reason": "reject reasons",
    "score": "scores",
}
_OF = {
    "category": "the assigned",
    "top_level": "the assigned",
    "review_reason": "those to review",
    "reject_reason": "the rejected",
    "score": "the scored",
}


def drift_page(drift: Mapping[str, Any], bound: float) -> str:
    """Render a self-contained page; all names are escaped, and its policy lets it load nothing.

    Args:
        drift: As `seer_model.evaluation.drift.compare_days` returns it, and `days`: `ds`,
            `listings` and `unfamiliar` of the last days published, the last first.
        bound: A population stability index above it is marked.
    """
    return render(
        "drift.html.jinja",
        **drift,
        bound=bound,
        verdict=_verdict(drift, bound),
        moves=_moves(drift),
    )


def _verdict(drift: Mapping[str, Any], bound: float) -> str:
    """Say in a sentence or two whether the day is like the earlier one."""
    before, after = drift["before"], drift["after"]
    measured = {name: found["psi"] for name, found in drift["measures"].items() if found}
    moved = sorted((name for name in measured if measured[name]), key=lambda name: -measured[name])
    beyond = [name for name in moved if measured[name] > bound]
    if not measured:
        return "The days cannot be compared: one of them has no listings."
    if beyond:
        verdict = f"Look into it: {_listed(beyond)} moved a lot since {before['ds']}."
    elif moved:
        verdict = f"No alarm: {_listed(moved)} moved a little since {before['ds']}."
    else:
        return f"All is as on {before['ds']}: what differs is within chance."
    if before["model"] == after["model"]:
        return verdict
    changed = f"The model changed, from {before['model']} to {after['model']}"
    return f"{verdict} {changed}, which may be why."


def _listed(names: Sequence[str]) -> str:
    *others, last = (_PLURALS[name] for name in names)
    return f"{', '.join(others)} and {last}" if others else last


def _moves(drift: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What moved beyond chance, the most first, each with the value that moved most."""
    moves = [
        {
            **move,
            "name": _PLURALS[name],
            "value": _shown(name, move["value"]),
            "of": _OF.get(name, "listings"),
            "psi": drift["measures"][name]["psi"],
        }
        for name, move in drift["largest_moves"].items()
    ]
    return sorted(moves, key=lambda move: -move["psi"])


def _shown(distribution: str, value: Any) -> str:
    if distribution == "score":
        return f"from {value / SCORE_BINS:.2f} to {(value + 1) / SCORE_BINS:.2f}"
    if distribution in ("decision", "review_reason", "reject_reason"):
        return str(value).replace("_", " ")
    return str(value)
