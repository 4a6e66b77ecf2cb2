"""Compare a challenger with the champion on labelled listings that neither was trained on.

    python -m jobs.evaluate_challenger --manifest manifest --challenger models:/NAME/2 --splits test

and `--champion models:/NAME@champion` puts the champion beside it.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import Field
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812
from rich.console import Console
from rich.table import Table

from jobs.embedding import embed_photos, scratch_folder
from jobs.manifest import read_photos
from jobs.progress import show_progress
from jobs.report import write_report
from jobs.scoring import score_photos
from jobs.session import start_session
from jobs.settings import JobSettings, run_job
from jobs.worker import ship_model
from schemas.errors import DataContractError
from seer_model import registry
from seer_model.metrics import Quality, measure_quality
from seer_model.registry import ResolvedBundle


class EvaluateChallenger(JobSettings):
    """Measure a challenger, and the champion beside it, on labelled listings."""

    manifest: str = Field(description="the manifest's folder")
    ds: date | None = Field(None, description="only this partition (default: all)")
    challenger: str = Field(description="models:/name/3, models:/name@alias, runs:/… or a folder")
    champion: str | None = Field(None, description="what it is compared with, named likewise")
    splits: list[str] = Field(["test"], description="splits of the manifest (repeatable)")
    embeddings: Path | None = Field(None, description="embedding store to use and fill")


def evaluate(settings: EvaluateChallenger) -> None:
    """Score the same listings with each model; log, tag the challenger's version, report."""
    registry.connect(settings.tracking_uri)
    challenger = registry.resolve_bundle(settings.challenger)
    models = {"challenger": challenger}
    if settings.champion is not None:
        models["champion"] = registry.resolve_bundle(settings.champion)
    spark = start_session("evaluate_challenger")
    photos = read_photos(
        spark, settings.manifest, settings.ds.isoformat() if settings.ds else None
    ).where(
        F.col("category_id").isNotNull()
        & F.col("split").isin(settings.splits)
        & F.col("listing_id").isNotNull()
    )
    if photos.isEmpty():
        raise DataContractError(
            f"{settings.manifest}: no labelled listing in the splits {', '.join(settings.splits)}"
        )
    parameters = settings.model_dump(exclude={"tracking_uri", "report"})
    with (
        registry.tracked_run("evaluate_challenger", parameters) as run_id,
        scratch_folder(settings.embeddings) as work,
    ):
        # Models that share a backbone share its vectors.
        store = settings.embeddings or work / "embeddings"
        qualities = {
            role: _measure(photos, model, store, work / role) for role, model in models.items()
        }
        for role, quality in qualities.items():
            registry.log_figures({f"{role}_{k}": v for k, v in quality.figures().items()})
        evaluation: dict[str, Any] = {
            "splits": settings.splits,
            "run_id": run_id,
            **{
                role: {"model": f"{model.name}/{model.version}", **asdict(qualities[role])}
                for role, model in models.items()
            },
        }
        if settings.challenger.startswith("models:/"):
            tags = {"evaluation": json.dumps(evaluation)}
            registry.tag_version(challenger.name, challenger.version, tags)
        _print_table(qualities)
        write_report(evaluation, settings.report)


def _measure(photos: DataFrame, model: ResolvedBundle, store: Path, work: Path) -> Quality:
    shipped = ship_model(photos.sparkSession, model.folder, model.bundle.digest)
    embedded = embed_photos(photos, shipped, model.bundle.backbone.digest, store, work)
    labels = photos.groupBy("listing_id").agg(F.min("category_id").alias("label"))
    scores = score_photos(embedded.photos, shipped)
    with show_progress(photos.sparkSession, "scoring listings"):
        table = labels.join(scores, "listing_id").toArrow()
    return measure_quality(model.bundle.tree, table.column("label").to_pylist(), table)


def _print_table(qualities: dict[str, Quality]) -> None:
    table = Table("", *qualities)
    rows = {role: quality.figures() for role, quality in qualities.items()}
    for name in asdict(next(iter(qualities.values()))):
        values = [rows[role].get(name) for role in qualities]
        table.add_row(
            name.replace("_", " "),
            *("-" if v is None else f"{v:.3f}" if v <= 1 else f"{v:.0f}" for v in values),
        )
    Console().print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(EvaluateChallenger, evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
