"""The gates before a promotion: what they demand, and whether an evaluation passes them."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, ValidationError

from schemas.errors import SettingsError
from seer_model.backbone import COMMERCIAL_LICENCES

__all__ = ["Gate", "Gates", "check_gates", "licence_gate", "read_gates"]


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


class _Precision(_Section):
    max_below_target: NonNegativeFloat


class _Calibration(_Section):
    max_error: NonNegativeFloat


class _Groups(_Section):
    min_listings: PositiveInt
    max_fall: NonNegativeFloat


class _Taxonomy(_Section):
    max_missing: int = Field(ge=0)


class Gates(_Section):
    """The settings, section by section as in `promotion_gates.toml`, which says what each means."""

    data: _Data
    better: _Better
    coverage: _MaxFall
    precision: _Precision
    calibration: _Calibration
    slices: _Groups
    categories: _Groups
    taxonomy: _Taxonomy


@dataclass(frozen=True)
class Gate:
    """One gate's result.

    Attributes:
        gate: Its name.
        passed: Whether the version passes.
        measured: What was found, in words.
        limit: What is demanded, in words.
    """

    gate: str
    passed: bool
    measured: str
    limit: str


def read_gates(path: Path | None) -> Gates:
    """The settings of a file, or the package's own.

    Raises:
        SettingsError: The file cannot be read, or a setting is missing, unknown or of a wrong type.
    """
    where = path or "promotion_gates.toml"
    try:
        text = (path or files("jobs").joinpath("promotion_gates.toml")).read_text(encoding="utf-8")
        return Gates.model_validate(tomllib.loads(text))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"--gates {where}: {error}") from error
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"--gates {where}: {'; '.join(problems)}") from error


def licence_gate(licence: str, *, acknowledged: bool) -> Gate:
    """Whether the licence is known to allow commercial use, or someone answers for it."""
    passed = licence in COMMERCIAL_LICENCES or acknowledged
    measured = licence + (", acknowledged" if acknowledged else "")
    return Gate("licence", passed, measured, "allows commercial use, or --acknowledge-licence")


def check_gates(
    gates: Gates, evaluation: Mapping[str, Any] | None, challenger: str, champion: str
) -> list[Gate]:
    """Every gate that an evaluation decides; without the right evaluation that gate alone.

    Args:
        gates: What is demanded.
        evaluation: As `jobs.evaluation.Evaluation.record`, or None where there was none.
        challenger: `name/version` of the version to promote.
        champion: That of the champion of today.
    """
    compared = _compared(evaluation, challenger, champion)
    if evaluation is None or not compared.passed:
        return [compared]
    mine, differences = evaluation["challenger"], evaluation["differences"]
    figures = mine["figures"]
    return [
        compared,
        *_right_data(gates.data, evaluation),
        _better(gates.better, differences),
        _coverage(gates.coverage.max_fall, differences),
        _precision(gates.precision.max_below_target, figures, mine["target_precision"]),
        Gate(
            "calibration",
            figures["calibration_error"] <= gates.calibration.max_error,
            f"error {figures['calibration_error']:.3f}",
            f"at most {gates.calibration.max_error:g}",
        ),
        _groups("slices", gates.slices, evaluation["slices"]),
        _groups("categories", gates.categories, evaluation["categories"]),
        _taxonomy(gates.taxonomy.max_missing, evaluation["missing_categories"]),
    ]


def _compared(evaluation: Mapping[str, Any] | None, challenger: str, champion: str) -> Gate:
    limit = f"{challenger} evaluated against the champion, {champion}"
    if evaluation is None:
        return Gate("evaluation", False, "none; run jobs.evaluate_challenger", limit)
    against = evaluation["champion"] and evaluation["champion"]["model"]
    found = f"{evaluation['challenger']['model']} against {against or 'nothing'}"
    passed = evaluation["challenger"]["model"] == challenger and against == champion
    return Gate("evaluation", passed, found, limit)


def _right_data(data: _Data, evaluation: Mapping[str, Any]) -> list[Gate]:
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


def _better(better: _Better, differences: Mapping[str, Any]) -> Gate:
    found = differences.get(better.figure)
    limit = f"{better.figure} better by more than {better.by:g}, beyond noise"
    if found is None:
        return Gate("better", False, f"no difference of {better.figure} was measured", limit)
    return Gate("better", found["low"] > better.by, _interval(found), limit)


def _coverage(max_fall: float, differences: Mapping[str, Any]) -> Gate:
    found = differences["coverage"]
    return Gate(
        "coverage",
        found["value"] >= -max_fall,
        _interval(found),
        f"falls by no more than {max_fall:g}",
    )


def _precision(max_below: float, figures: Mapping[str, float], target: float) -> Gate:
    found = figures.get("precision")
    return Gate(
        "precision",
        found is None or found >= target - max_below,
        "nothing assigned" if found is None else f"{found:.3f}",
        f"at least {target - max_below:.3g}",
    )


def _groups(name: str, limits: _Groups, groups: Sequence[Mapping[str, Any]]) -> Gate:
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


def _taxonomy(max_missing: int, missing: Sequence[str]) -> Gate:
    examples = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
    return Gate(
        "taxonomy",
        len(missing) <= max_missing,
        f"{len(missing)} missing" + (f": {examples}" if missing else ""),
        f"at most {max_missing} of the champion's categories missing",
    )


def _interval(difference: Mapping[str, float]) -> str:
    return f"{difference['value']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})"
