"""Promotion gates of screeners; `gates.toml` says what each setting means."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt

from seer_model.evaluation.gate import Gate

__all__ = ["ConceptLimits", "concept_gates"]


class ConceptLimits(BaseModel):
    """The section `concepts` of the gates' settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_with_it: PositiveInt = 20
    max_below_recall: NonNegativeFloat = 0.02
    max_below_precision: NonNegativeFloat = 0.02
    max_fall: NonNegativeFloat = 0.05
    max_missing: NonNegativeInt = 0


def concept_gates(limits: ConceptLimits, evaluation: Mapping[str, Any]) -> list[Gate]:
    """Check a screener's evaluation, and the comparison where it has a champion.

    A share falls short if its whole 95 % interval does.

    Args:
        limits: The settings.
        evaluation: As `concepts.concept_record` returns it.
    """
    model = evaluation["challenger"]
    concepts = model["concepts"]
    recall, precision = model["target_recall"], model["target_precision"]
    few = [f"{name} {each['with_it']}" for name, each in concepts.items()]
    few = [
        text
        for text, each in zip(few, concepts.values(), strict=True)
        if each["with_it"] < limits.min_with_it
    ]
    few += [f"{name} 0" for name in evaluation["unmeasured"]]
    gates = [
        _gate(
            "labels", few, f"{len(concepts)} measured", f"{limits.min_with_it} listings with each"
        ),
        _gate(
            "recall",
            _short(concepts, "recall", recall - limits.max_below_recall),
            _all(concepts, "recall"),
            f"of each at least {recall - limits.max_below_recall:.3g}",
        ),
        _gate(
            "block_precision",
            _short(concepts, "block_precision", precision - limits.max_below_precision),
            _all(concepts, "block_precision"),
            f"of each at least {precision - limits.max_below_precision:.3g}",
        ),
    ]
    if evaluation["champion"] is None:
        return gates
    worse = [
        f"{name} {each['value']:+.3f} ({each['low']:+.3f} to {each['high']:+.3f})"
        for name, each in evaluation["differences"].items()
        if each["value"] < -limits.max_fall and each["high"] < 0
    ]
    missing = evaluation["missing_concepts"]
    return [
        *gates,
        _gate(
            "average_precision",
            worse,
            f"none of {len(evaluation['differences'])} falls so far",
            f"of none falls by more than {limits.max_fall:g}",
        ),
        Gate(
            "concepts",
            len(missing) <= limits.max_missing,
            f"{len(missing)} missing" + (f": {', '.join(missing[:3])}" if missing else ""),
            f"at most {limits.max_missing} of the champion's concepts missing",
        ),
    ]


def _gate(name: str, problems: Sequence[str], measured: str, limit: str) -> Gate:
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return Gate(name, not problems, "; ".join(problems[:3]) + more or measured, limit)


def _short(concepts: Mapping[str, Mapping[str, Any]], name: str, least: float) -> list[str]:
    return [
        f"{concept} {each[name]:.3f}"
        for concept, each in concepts.items()
        if each[name] is not None and each[f"{name}_interval"][1] < least
    ]


def _all(concepts: Mapping[str, Mapping[str, Any]], name: str) -> str:
    found = [each[name] for each in concepts.values() if each[name] is not None]
    return f"lowest {min(found):.3f}" if found else "nothing found"
