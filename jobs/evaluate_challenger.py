"""Compare a challenger with the champion on labelled listings that neither was trained on.

    python -m jobs.evaluate_challenger --manifest manifest --challenger models:/NAME/2 --splits test

and `--champion models:/NAME@champion` puts the champion beside it.
"""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pydantic import Field
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812
from rich.console import Console
from rich.table import Table

from jobs.embedding import embed_photos, scratch_folder
from jobs.embedding_store import despite_damage
from jobs.evaluation import Judged, evaluation_record
from jobs.evaluation_page import FIGURES, evaluation_page
from jobs.manifest import describe_data, read_photos
from jobs.photo_settings import PhotoSettings
from jobs.progress import show_progress
from jobs.report import write_report
from jobs.scoring import score_photos
from jobs.session import start_session
from jobs.settings import run_job
from jobs.worker import ship_model
from schemas.errors import DataContractError, SettingsError
from seer_model import registry
from seer_model.outcomes import judge
from seer_model.photos import PhotoLimits
from seer_model.promotion import EVALUATION_FILE
from seer_model.registry import ResolvedBundle


class EvaluateChallenger(PhotoSettings):
    """Measure a challenger, and the champion beside it, on labelled listings."""

    manifest: str = Field(description="the manifest's folder")
    ds: date | None = Field(None, description="only this partition (default: all)")
    challenger: str = Field(description="models:/name/3, models:/name@alias, runs:/… or a folder")
    champion: str | None = Field(None, description="what it is compared with, named likewise")
    splits: list[str] = Field(["test"], description="splits of the manifest (repeatable)")
    embeddings: Path | None = Field(None, description="embedding store to use and fill")
    page: Path | None = Field(None, description="write the HTML page here too; MLflow has it")


def evaluate(settings: EvaluateChallenger) -> None:
    """Score the same listings with each model; compare, log, tag the challenger's version."""
    registry.connect(settings.tracking_uri)
    challenger = registry.resolve_bundle(settings.challenger)
    champion = registry.resolve_bundle(settings.champion) if settings.champion else None
    if champion is not None and champion.bundle.digest == challenger.bundle.digest:
        raise SettingsError(
            f"{settings.challenger} and {settings.champion} are the same model: nothing to compare"
        )
    spark = start_session("evaluate_challenger")
    ds = settings.ds.isoformat() if settings.ds else None
    photos = read_photos(spark, settings.manifest, ds).where(
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
        data = describe_data(photos, settings.manifest, ds)
        registry.log_data(data)
        for model, uri in ((challenger, settings.challenger), (champion, settings.champion)):
            if model is not None and uri is not None and uri.startswith("models:/"):
                registry.link_model(model.name, model.version)
        listings = _labelled_listings(photos)
        # Models that share a backbone share its vectors.
        store = settings.embeddings or work / "embeddings"
        limits = settings.photo_limits()
        mine = _judge(photos, listings, challenger, store, work / "challenger", limits)
        theirs = None
        if champion is not None:
            theirs = _judge(photos, listings, champion, store, work / "champion", limits)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        origin = {
            "run_id": run_id,
            "evaluated_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "manifest": data["manifest"],
            "ds": ds,
            "splits": settings.splits,
            "data": dict(data),
            "device": device,
        }
        evaluation = evaluation_record(
            mine,
            theirs,
            [dict(found or ()) for found in listings.column("slices").to_pylist()],
            origin,
            device,
        )
        _log(evaluation, settings.page)
        _print_table(evaluation)
        write_report(_summary(evaluation), settings.report)
        if lost := registry.tracking_lost():
            raise SettingsError(f"the evaluation was not kept for a promotion: {lost}")
        if settings.challenger.startswith("models:/"):
            registry.tag_version(challenger.name, challenger.version, {"evaluation_run": run_id})


def _labelled_listings(photos: DataFrame) -> pa.Table:
    """listing_id, label and slices (those of its first photo), by listing_id."""
    found = photos.groupBy("listing_id").agg(
        F.min("category_id").alias("label"),
        F.min_by("slices", "image_index").alias("slices"),
    )
    return found.toArrow().sort_by("listing_id")


def _judge(
    photos: DataFrame,
    listings: pa.Table,
    model: ResolvedBundle,
    store: Path,
    work: Path,
    limits: PhotoLimits,
) -> Judged:
    shipped = ship_model(photos.sparkSession, model.folder, model.bundle.digest)
    backbone = model.bundle.backbone.digest

    def score() -> pa.Table:
        embedded = embed_photos(photos, shipped, backbone, store, work, limits)
        with show_progress(photos.sparkSession, "scoring listings"):
            return score_photos(embedded.photos, shipped).toArrow().sort_by("listing_id")

    scores, _ = despite_damage(photos.sparkSession, store, backbone, score)
    if scores.column("listing_id").to_pylist() != listings.column("listing_id").to_pylist():
        raise DataContractError(f"{len(scores)} listings scored of {len(listings)} labelled")
    return Judged(model, judge(model.bundle.tree, listings.column("label").to_pylist(), scores))


def _log(evaluation: dict[str, Any], page: Path | None) -> None:
    for role in ("challenger", "champion"):
        if evaluation[role]:
            figures = evaluation[role]["figures"].items()
            registry.log_figures({f"{role}_{name}": value for name, value in figures})
    html = evaluation_page(evaluation)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(html, encoding="utf-8")
    registry.log_text(html, "evaluation.html")
    registry.log_text(json.dumps(evaluation, indent=1), EVALUATION_FILE)


def _print_table(evaluation: dict[str, Any]) -> None:
    roles = [role for role in ("challenger", "champion") if evaluation[role]]
    table = Table("", *roles, *(["difference (95 % interval)"] if len(roles) > 1 else []))
    for name in FIGURES:
        values = [evaluation[role]["figures"].get(name) for role in roles]
        cells = ["-" if v is None else f"{v:.3f}" for v in values]
        if d := evaluation["differences"].get(name):
            cells.append(f"{d['value']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})")
        table.add_row(name.replace("_", " "), *cells)
    Console().print(table)


def _summary(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What scripts ask for; the rest is in the run's evaluation.json."""
    shown = ("challenger", "champion")
    return {
        "challenger_model": evaluation["challenger"]["model"],
        "champion_model": evaluation["champion"] and evaluation["champion"]["model"],
        "splits": evaluation["splits"],
        **{
            role: {name: round(value, 4) for name, value in evaluation[role]["figures"].items()}
            for role in shown
            if evaluation[role]
        },
        "top1_difference": evaluation["differences"].get("top1"),
        "page": "evaluation.html, among the run's artifacts",
        "run_id": evaluation["run_id"],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(EvaluateChallenger, evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
