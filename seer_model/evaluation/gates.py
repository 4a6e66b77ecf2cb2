"""Promotion gates: their settings, and whether an evaluation passes them."""

import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, ValidationError

from schemas.errors import SettingsError
from seer_model.backbones.backbone import COMMERCIAL_LICENCES
from seer_model.evaluation.concept_gates import ConceptLimits, concept_gates
from seer_model.evaluation.concepts import KIND
from seer_model.evaluation.gate import Gate

__all__ = ["Gates", "check_gates", "licence_gate", "read_gates"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Data(_Section):
    splits: list[str] = Field(min_length=1)
    min_listings: PositiveInt
    max_age_days: PositiveInt


class _Better(_Section):
    figure: str
    by: float


class _MaxFall(_Section):
    max_fall: NonNegativeFloat


class _ExactCoverage(_Section):
    min_share: float = Field(ge=0, le=1)
    max_fall: NonNegativeFloat


class _Precision(_Section):
    max_below_target: NonNegativeFloat


class _Calibration(_Section):
    max_error: NonNegativeFloat


class _Groups(_Section):
    min_listings: PositiveInt
    max_fall: NonNegativeFloat


class _WorstGroups(_Section):
    slices: list[str] = Field(min_length=1)
    min_top1: float = Field(ge=0, le=1)
    max_gap: float = Field(ge=0, le=1)


class _Taxonomy(_Section):
    max_missing: int = Field(ge=0)


class Gates(_Section):
    """The gates' settings; `gates.toml` says what each means."""

    data: _Data
    better: _Better
    coverage: _MaxFall
    exact_coverage: _ExactCoverage | None = None
    precision: _Precision
    calibration: _Calibration
    slices: _Groups
    categories: _Groups
    worst_groups: _WorstGroups | None = None
    taxonomy: _Taxonomy
    concepts: ConceptLimits = ConceptLimits()


def read_gates(path: Path | None) -> Gates:
    """Read the settings from a file; None for the package's own `gates.toml`.

    Raises:
        SettingsError: The file cannot be read, or a setting is missing, unknown or of a wrong type.
    """
    where = path or "gates.toml"
    try:
        text = (path or files(__package__).joinpath("gates.toml")).read_text(encoding="utf-8")
        return Gates.model_validate(tomllib.loads(text))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"--gates {where}: {error}") from error
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"--gates {where}: {'; '.join(problems)}") from error


def licence_gate(licence: str, *, acknowledged: bool) -> Gate:
    """Check that the licence is known to allow commercial use, or that it was acknowledged."""
    passed = licence in COMMERCIAL_LICENCES or acknowledged
    measured = licence + (", acknowledged" if acknowledged else "")
    return Gate("licence", passed, measured, "allows commercial use, or --acknowledge-licence")


def check_gates(
    gates: Gates, evaluation: Mapping[str, Any] | None, challenger: str, champion: str | None
) -> list[Gate]:
    """Check every gate that depends on the evaluation.

    A first version has no champion to be compared with: it must assign something, and meet the
    gates that are no comparison.

    Args:
        gates: The gates' settings.
        evaluation: As `record.evaluation_record`, or `concepts.concept_record` of a screener,
            returns it; None if there is none.
        challenger: `name/version` of the version to promote.
        champion: `name/version` of the current champion; None if there is none.

    Returns:
        All gates; only the first, `evaluation`, if it fails: without an evaluation of these models
        the others cannot be checked.
    """
    compared = _evaluation_gate(evaluation, challenger, champion)
    if evaluation is None or not compared.passed:
        return [compared]
    data = _data_gates(gates.data, evaluation)
    if evaluation.get("kind") == KIND:
        return [compared, *data, *concept_gates(gates.concepts, evaluation)]
    model, differences = evaluation["challenger"], evaluation["differences"]
    figures, target = model["figures"], model["target_precision"]
    groups = []
    if champion is None:
        comparison = [_first_coverage_gate(figures)]
    else:
        comparison = [
            _better_gate(gates.better, differences),
            _coverage_gate(gates.coverage.max_fall, differences),
        ]
        groups = [
            _groups_gate("slices", gates.slices, evaluation["slices"]),
            _groups_gate("categories", gates.categories, evaluation["categories"]),
            _taxonomy_gate(gates.taxonomy.max_missing, evaluation["missing_categories"]),
        ]
    return [
        compared,
        *data,
        *comparison,
        *_exact_coverage_gate(gates.exact_coverage, figures, differences if champion else None),
        _precision_gate(gates.precision.max_below_target, figures, target),
        _calibration_gate(gates.calibration.max_error, figures),
        *_worst_groups_gate(gates.worst_groups, model.get("worst_groups", ())),
        *groups,
    ]


def _evaluation_gate(
    evaluation: Mapping[str, Any] | None, challenger: str, champion: str | None
) -> Gate:
    limit = f"{challenger} evaluated" + (f" against the champion, {champion}" if champion else "")
    if evaluation is None:
        return Gate("evaluation", False, "none; run jobs.evaluate_challenger", limit)
    against = evaluation["champion"] and evaluation["champion"]["model"]
    found = f"{evaluation['challenger']['model']} against {against or 'nothing'}"
    passed = evaluation["challenger"]["model"] == challenger and champion in (None, against)
    return Gate("evaluation", passed, found, limit)


def _data_gates(data: _Data, evaluation: Mapping[str, Any]) -> list[Gate]:
    age = datetime.now(UTC) - datetime.fromisoformat(evaluation["evaluated_at"])
    splits, listings = evaluation["splits"], evaluation["challenger"]["figures"]["listings"]
    return [
        Gate(
            "splits",
            sorted(splits) == sorted(data.splits),
            ", ".join(splits),
            ", ".join(data.splits),
        ),
        Gate(
            "listings",
            listings >= data.min_listings,
            f"{listings:.0f} labelled",
            f"at least {data.min_listings}",
        ),
        Gate(
            "age",
            age <= timedelta(days=data.max_age_days),
            f"{age.days} days",
            f"at most {data.max_age_days}",
        ),
    ]


def _better_gate(better: _Better, differences: Mapping[str, Any]) -> Gate:
    found = differences.get(better.figure)
    limit = f"{better.figure} better by more than {better.by:g}, beyond noise"
    if found is None:
        return Gate("better", False, f"no difference of {better.figure} was measured", limit)
    return Gate("better", found["low"] > better.by, _interval(found), limit)


def _coverage_gate(max_fall: float, differences: Mapping[str, Any]) -> Gate:
    found = differences["coverage"]
    return Gate(
        "coverage",
        found["value"] >= -max_fall,
        _interval(found),
        f"falls by no more than {max_fall:g}",
    )


def _first_coverage_gate(figures: Mapping[str, float]) -> Gate:
    found = figures["coverage"]
    return Gate("coverage", found > 0, f"{found:.3f}", "above 0")


def _exact_coverage_gate(
    limits: _ExactCoverage | None,
    figures: Mapping[str, float],
    differences: Mapping[str, Any] | None,
) -> list[Gate]:
    if limits is None:
        return []
    name, limit = "exact_coverage", f"at least {limits.min_share:g}"
    share = figures.get(name)
    if share is not None and differences is None:
        return [Gate(name, share >= limits.min_share, f"{share:.3f}", limit)]
    limit += f", and falls by no more than {limits.max_fall:g}"
    found = (differences or {}).get(name)
    if share is None or found is None:
        return [Gate(name, False, "not measured; evaluate again", limit)]
    passed = share >= limits.min_share and found["value"] >= -limits.max_fall
    return [Gate(name, passed, f"{share:.3f}, {_interval(found)}", limit)]


def _precision_gate(max_below: float, figures: Mapping[str, float], target: float) -> Gate:
    found = figures.get("precision")
    return Gate(
        "precision",
        found is None or found >= target - max_below,
        "nothing assigned" if found is None else f"{found:.3f}",
        f"at least {target - max_below:.3g}",
    )


def _calibration_gate(max_error: float, figures: Mapping[str, float]) -> Gate:
    found = figures["calibration_error"]
    return Gate("calibration", found <= max_error, f"error {found:.3f}", f"at most {max_error:g}")


def _groups_gate(name: str, limits: _Groups, groups: Sequence[Mapping[str, Any]]) -> Gate:
    large = [g for g in groups if g["listings"] >= limits.min_listings]
    worse = [
        g
        for g in large
        if g["difference"]["value"] < -limits.max_fall and g["difference"]["high"] < 0
    ]
    worse.sort(key=lambda g: g["difference"]["value"])
    examples = "; ".join(f"{g['group']} {g['difference']['value']:+.3f}" for g in worse[:3])
    more = f" and {len(worse) - 3} more" if len(worse) > 3 else ""
    return Gate(
        name,
        not worse,
        examples + more or f"none of {len(large)} falls so far",
        f"none of {limits.min_listings} listings or more falls by more than {limits.max_fall:g}",
    )


def _worst_groups_gate(
    limits: _WorstGroups | None, found: Sequence[Mapping[str, Any]]
) -> list[Gate]:
    """Check the slices named: a limit is missed if the whole interval lies on its wrong side."""
    if limits is None:
        return []
    measured = {group["slice"]: group for group in found}
    problems = [f"{name} not measured" for name in limits.slices if name not in measured]
    for name in filter(measured.__contains__, limits.slices):
        group = measured[name]
        if group["top1_interval"][1] < limits.min_top1:
            problems.append(f"{name}={group['worst']} {group['top1']:.3f}")
        if group["gap"]["low"] > limits.max_gap:
            problems.append(f"gap of {name} {_interval(group['gap'])}")
    return [
        Gate(
            "worst_groups",
            not problems,
            "; ".join(problems) or f"none of {len(limits.slices)} slices beyond noise",
            f"worst group at least {limits.min_top1:g}, gap at most {limits.max_gap:g}",
        )
    ]


def _taxonomy_gate(max_missing: int, missing: Sequence[str]) -> Gate:
    examples = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
    return Gate(
        "taxonomy",
        len(missing) <= max_missing,
        f"{len(missing)} missing" + (f": {examples}" if missing else ""),
        f"at most {max_missing} of the champion's categories missing",
    )


def _interval(difference: Mapping[str, float]) -> str:
    return f"{difference['value']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})"
