"""Decide which version the daily job uses: move `@champion`, remember `@previous`.

python -m jobs.promote_challenger --model-name listing-categorizer --version 2
python -m jobs.promote_challenger --model-name listing-categorizer --rollback
"""

import getpass
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Self

from pydantic import Field, model_validator

from jobs.report import write_report
from jobs.settings import JobSettings, run_job
from schemas.errors import GateRefusal, SettingsError
from seer_model import registry
from seer_model.backbone import COMMERCIAL_LICENCES

CHAMPION = "champion"
PREVIOUS = "previous"


class PromoteChallenger(JobSettings):
    """Make a version the champion if it passes the gates, or bring the previous one back."""

    model_name: str = Field("listing-categorizer", description="name in the registry")
    version: int | None = Field(None, description="the version to promote")
    rollback: bool = Field(False, description="make the previous champion the champion again")
    acknowledge_licence: bool = Field(
        False, description="promote although the licence is not known to allow commercial use"
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.version is None) != self.rollback:
            raise ValueError("give either --version N or --rollback")
        return self


def promote(settings: PromoteChallenger) -> None:
    """Check the gates, move the aliases, record who and why."""
    registry.connect(settings.tracking_uri)
    name = settings.model_name
    champion = registry.aliased_version(name, CHAMPION)
    if settings.rollback:
        target = registry.aliased_version(name, PREVIOUS)
        if target is None:
            raise SettingsError(f"models:/{name}: there is no @{PREVIOUS} to go back to")
        reason = "rollback"
    else:
        target = str(settings.version)
        reason = _gates(name, target, champion, settings.acknowledge_licence)
    with registry.tracked_run("promote_challenger", {"model": name, "version": target}) as run_id:
        if champion is not None and champion != target:
            registry.move_alias(name, PREVIOUS, champion)
        registry.move_alias(name, CHAMPION, target)
        record = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "by": getpass.getuser(),
            "instead_of": champion,
            "reason": reason,
            "licence_acknowledged": settings.acknowledge_licence,
            "run_id": run_id,
        }
        registry.tag_version(name, target, {"promotion": json.dumps(record)})
    write_report(
        {"model": f"models:/{name}@{CHAMPION}", "version": target, **record}, settings.report
    )


def _gates(name: str, version: str, champion: str | None, acknowledged: bool) -> str:
    tags = registry.version_tags(name, version)
    licence = tags.get("licence", "unknown")
    if licence not in COMMERCIAL_LICENCES and not acknowledged:
        raise GateRefusal(
            f"models:/{name}/{version}: its licence {licence!r} is not known to allow commercial "
            "use; give --acknowledge-licence if you may use it"
        )
    if champion is None or champion == version:
        return "no other champion to compare with"
    evaluation = json.loads(tags.get("evaluation", "{}"))
    measured = evaluation.get("champion", {})
    if measured.get("model") != f"{name}/{champion}":
        raise GateRefusal(
            f"models:/{name}/{version}: not evaluated against the champion, version {champion}; "
            f"run jobs.evaluate_challenger with --champion models:/{name}@{CHAMPION}"
        )
    mine, theirs = evaluation["challenger"]["top1"], measured["top1"]
    if mine < theirs:
        raise GateRefusal(
            f"models:/{name}/{version}: top-1 {mine:.3f} is below the champion's {theirs:.3f} on "
            f"{', '.join(evaluation['splits'])}"
        )
    return f"top-1 {mine:.3f} against {theirs:.3f} on {', '.join(evaluation['splits'])}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(PromoteChallenger, promote, argv)


if __name__ == "__main__":
    sys.exit(main())
