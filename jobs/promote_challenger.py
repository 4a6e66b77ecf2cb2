"""Decide which version the daily job uses: move `@champion`, and keep `@previous` for a rollback.

python -m jobs.promote_challenger --model-name listing-categorizer --version 2
python -m jobs.promote_challenger --model-name listing-categorizer --rollback
"""

import getpass
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from jobs.command.settings import JobSettings, check_arguments, run_job


class PromoteChallenger(JobSettings):
    """Make a version the champion if it passes the gates, or bring the previous one back."""

    model_name: str = Field("listing-categorizer", description="name in the registry")
    version: int | None = Field(None, description="the version to promote")
    rollback: bool = Field(False, description="make the previous champion the champion again")
    acknowledge_licence: bool = Field(
        False, description="promote even if the licence is not known to allow commercial use"
    )
    without_evaluation: bool = Field(
        False, description="promote a first version without an evaluation: only its licence counts"
    )
    gates: Path | None = Field(
        None, description="settings of the gates (default: the package's gates.toml)"
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.version is None) != self.rollback:
            raise ValueError("give either --version N or --rollback")
        if self.rollback and self.without_evaluation:
            raise ValueError("--without-evaluation goes with --version")
        return self


if __name__ == "__main__":
    check_arguments(PromoteChallenger)  # Before the imports below, which take seconds.

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.command import job_run
from jobs.command.report import write_report
from schemas.errors import GateRefusal, SettingsError
from seer_model.evaluation.gate import Gate
from seer_model.evaluation.gates import check_gates, licence_gate, read_gates
from seer_model.tracking import registry, runs
from seer_model.tracking.promotion import load_evaluation, promotion_lock

CHAMPION = "champion"
PREVIOUS = "previous"


def promote(settings: PromoteChallenger) -> None:
    """Check the gates, move the aliases, and record who promoted, why, and on which evaluation."""
    read_gates(settings.gates)  # Fail early if the file has a mistake.
    runs.connect(settings.tracking_uri)
    name = settings.model_name
    registry.aliased_version(name, CHAMPION)  # Fail early if there is no such model.
    with promotion_lock(name):
        champion = registry.aliased_version(name, CHAMPION)
        target = _previous(name, champion) if settings.rollback else str(settings.version)
        if settings.without_evaluation and champion not in (None, target):
            raise SettingsError(
                f"models:/{name}@{CHAMPION} is version {champion}: --without-evaluation is for a "
                "first version, evaluate this one against the champion"
            )
        tags = registry.version_tags(name, target)
        with runs.tracked_run("promote_challenger", settings.run_parameters()) as run_id:
            runs.add_to_name(f"{name} v{target}")
            job_run.reads_model(f"models:/{name}", target)
            gates = [] if settings.rollback else _check(settings, tags, target, champion)
            failed = [gate for gate in gates if not gate.passed]
            record = {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "by": getpass.getuser(),
                "instead_of": champion,
                "reason": "rollback" if settings.rollback else _reason(gates, champion, target),
                "without_evaluation": settings.without_evaluation,
                "licence_acknowledged": settings.acknowledge_licence,
                "evaluation_run": tags.get("evaluation_run"),
                "run_id": run_id,
            }
            outcome: dict[str, Any] = {
                "model": f"models:/{name}/{target}",
                "version": target,
                "promoted": not failed,
                "gates": [asdict(gate) for gate in gates],
                **record,
            }
            runs.log_text(json.dumps(outcome, indent=1), "promotion.json")
            if not failed:
                _make_champion(name, target, champion, record)
                job_run.writes(f"models:/{name}@{CHAMPION}", version=target)
            _print_gates(gates)
            write_report(outcome, settings.report)
    if failed:
        raise GateRefusal(
            f"models:/{name}/{target}: refused by {len(failed)} of {len(gates)} gates: "
            f"{record['reason']}"
        )


def _previous(name: str, champion: str | None) -> str:
    target = registry.aliased_version(name, PREVIOUS)
    if target is None or target == champion:
        raise SettingsError(f"models:/{name}: no @{PREVIOUS} to roll back to")
    return target


def _check(
    settings: PromoteChallenger, tags: dict[str, str], target: str, champion: str | None
) -> list[Gate]:
    licence = licence_gate(
        tags.get("licence", "unknown"), acknowledged=settings.acknowledge_licence
    )
    if settings.without_evaluation or champion == target:
        return [licence]
    name = settings.model_name
    gates, evaluation = read_gates(settings.gates), load_evaluation(tags)
    against = champion and f"{name}/{champion}"
    return [licence, *check_gates(gates, evaluation, f"{name}/{target}", against)]


def _reason(gates: Sequence[Gate], champion: str | None, target: str) -> str:
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        return "; ".join(f"{g.gate}: {g.measured}, required: {g.limit}" for g in failed)
    if champion == target:
        return "already the champion"
    return "; ".join(f"{gate.gate}: {gate.measured}" for gate in gates)


def _make_champion(
    name: str, target: str, champion: str | None, record: Mapping[str, object]
) -> None:
    if champion is not None and champion != target:
        registry.move_alias(name, PREVIOUS, champion)
    registry.move_alias(name, CHAMPION, target)
    registry.tag_version(name, target, {"promotion": json.dumps(record)})


def _print_gates(gates: Sequence[Gate]) -> None:
    table = Table("gate", "", "measured", "required")
    for gate in gates:
        mark = Text("passed", "green") if gate.passed else Text("failed", "bold red")
        table.add_row(gate.gate, mark, Text(gate.measured), Text(gate.limit))
    if gates:
        Console().print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(PromoteChallenger, promote, argv)


if __name__ == "__main__":
    sys.exit(main())
