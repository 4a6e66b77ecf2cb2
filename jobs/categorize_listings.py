"""Categorize the listings of a manifest partition and publish their categories: the daily job.

    python -m jobs.categorize_listings --manifest manifest --ds 2026-11-25 --output categories

or through spark-submit, with this file and `--py-files dist/seer-categories.zip`.
"""

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from pydantic import Field

from jobs.command.locations import Location, ManifestLocation
from jobs.command.photo_settings import SCRATCH, PhotoSettings
from jobs.command.settings import Day, begin, run_job
from schemas.embeddings import Signal


class CategorizeListings(PhotoSettings):
    """Categorize every listing of a manifest partition and publish one row for each."""

    manifest: ManifestLocation = Field(description="the manifest's folder or table")
    ds: Day = Field(description="the partition's date, YYYY-MM-DD")
    model: str = Field(
        "models:/listing-categorizer@champion",
        description="models:/name@alias, models:/name/3, runs:/… or a bundle's folder",
    )
    output: Location = Field(
        description="the categories' folder, local or mounted, or table:CATALOG.NAMESPACE.NAME"
    )
    embeddings: Location | None = Field(
        None, description="embedding store to read and add to, a folder or a table"
    )
    labels: Location | None = Field(
        None, description="what people decided, a folder or a table; wins over the model"
    )
    signals: list[Signal] = Field(
        [],
        description="what else to read of each photo, so that other jobs need not read it again "
        "(repeatable): hashes, text, colours",
    )
    scratch: str | None = SCRATCH
    drift_warning: float = Field(
        0.2,
        gt=0,
        description="population stability index against the day before above which to warn",
    )


if __name__ == "__main__":
    begin(CategorizeListings)  # Before the imports below, which take seconds.

from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.command import job_run
from jobs.command.folders import Folder
from jobs.command.progress import show_progress
from jobs.command.report import write_report
from jobs.command.session import start_session
from jobs.stages.accounting import check_accounting
from jobs.stages.decisions import decided_now
from jobs.stages.drift import drift_figures
from jobs.stages.embedding import embed_photos
from jobs.stages.fingerprint import describe_data
from jobs.stages.manifest import read_photos
from jobs.stages.overrides import decide_by_people, outside_taxonomy
from jobs.stages.publish.base import Partition
from jobs.stages.publish.opening import CATEGORIES_TABLE, open_output
from jobs.stages.scoring import score_photos
from jobs.stages.scratch import scratch_base, scratch_space
from jobs.stages.signals import SignalReading
from jobs.stages.store.opening import hold_store, open_store
from jobs.stages.unread import check_drivers, check_unread
from jobs.stages.worker import ship_model
from schemas.categories import CATEGORIES, Decision, ReviewReason
from seer_model.categorizer.bundle import ResolvedBundle
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.tracking import registry, runs

log = logging.getLogger(__name__)


def categorize(settings: CategorizeListings) -> None:
    """Read, embed, score, check, publish, report.

    Once the categories are published, neither MLflow nor the comparison with the day before can
    fail the job. The run's metrics are the report's numbers, those of `drift` as `drift.NAME`.
    """
    ds = settings.ds.isoformat()
    runs.connect(settings.tracking_uri)
    model = registry.resolve_bundle(settings.model)
    log.info("model %s version %s, bundle %s", model.name, model.version, model.bundle.digest[:12])
    if model.bundle.calibration.assigns_nothing:
        log.warning("%s can assign nothing: no score was safe enough in training", settings.model)
    spark = start_session("categorize_listings")
    photos = read_photos(spark, settings.manifest, ds)
    taxonomy = model.bundle.tree.taxonomy
    decisions = decided_now(spark, settings.labels)
    not_in_taxonomy = outside_taxonomy(decisions, taxonomy)
    output = open_output(spark, settings.output, CATEGORIES_TABLE)
    base = scratch_base(spark, settings.scratch, settings.output, settings.embeddings)
    with runs.tracked_run("categorize_listings", settings.run_parameters()) as run_id:
        with (
            output.hold(ds, run_id) as partition,
            hold_store(settings.embeddings),
            scratch_space(base) as scratch,
            open_store(settings.embeddings, model.bundle.backbone.digest, base) as store,
        ):
            data = describe_data(photos, settings.manifest, ds)
            runs.log_data(data)
            job_run.reads(settings.manifest, ds=ds, rows=data["rows"], version=data["digest"])
            job_run.reads_model(settings.model, model.version)
            job_run.reads(settings.labels)
            check_drivers(data, settings)
            if settings.model.startswith("models:/"):
                runs.link_model(model.name, model.version)
            started = perf_counter()
            shipped = ship_model(spark, model.folder, model.bundle.digest)
            listed = photos.where(F.col("listing_id").isNotNull())
            limits = settings.photo_limits()
            signals = SignalReading.of(settings.signals)
            for attempt in store.attempts(spark):
                with attempt:
                    embedded = embed_photos(listed, shipped, store, scratch, limits, signals)
                    check_unread(embedded.unread, data["rows"], settings.max_unread_share)
                    scores = score_photos(embedded.photos, shipped)
                    decided = decide_by_people(scores, decisions, taxonomy)
                    staged = _stage(_with_origin(decided, model, run_id), partition, scratch)
            counts = _check_counts(photos, staged, model.bundle.tree)
            seconds = perf_counter() - started
            published = partition.publish(_properties(model, run_id))
            job_run.adds_to(settings.embeddings, rows=embedded.embedded)
            job_run.writes(settings.output, ds=ds, rows=counts["listings"], columns=CATEGORIES)
        figures = {
            "ds": ds,
            "model": f"{model.name} version {model.version}",
            "bundle_digest": model.bundle.digest,
            "backbone": f"{model.bundle.backbone.architecture}: {model.bundle.backbone.origin}",
            "taxonomy_version": taxonomy.version,
            **counts,
            **_rates(counts),
            "decisions_not_in_taxonomy": not_in_taxonomy,
            "photos_embedded": embedded.embedded,
            "photos_unread": embedded.unread,
            "devices": embedded.devices,
            "embeddings_recovered": store.recovered,
            "store_files_damaged": store.quarantined,
            "seconds": round(seconds, 1),
            "photos_per_second": round(embedded.embedded / seconds, 1),
            "published": published,
            "run_id": run_id,
            "drift": drift_figures(spark, output, ds, settings.drift_warning),
        }
        runs.log_figures(figures)
        write_report(figures, settings.report)


def _with_origin(scores: DataFrame, model: ResolvedBundle, run_id: str) -> DataFrame:
    origin = {
        "model_name": model.name,
        "model_version": model.version,
        "bundle_digest": model.bundle.digest,
        "taxonomy_version": model.bundle.tree.taxonomy.version,
        "run_id": run_id,
        "categorized_at": datetime.now(UTC),
    }
    columns = {name: F.lit(value) for name, value in origin.items()}
    return scores.withColumns(columns).select(*CATEGORIES.names)


def _stage(categories: DataFrame, partition: Partition, scratch: Folder) -> DataFrame:
    with show_progress(categories.sparkSession, "scoring listings"):
        return partition.stage(categories, scratch)


def _properties(model: ResolvedBundle, run_id: str) -> dict[str, str]:
    """What the history of a table says of the commit."""
    return {
        "seer.run-id": run_id,
        "seer.model": f"{model.name} version {model.version}",
        "seer.bundle-digest": model.bundle.digest,
    }


def _check_counts(photos: DataFrame, staged: DataFrame, tree: ClassTree) -> dict[str, Any]:
    """Check that every listing has one row and one decision, and that no photo was lost.

    Returns:
        Counts for the report: of listings by what was decided, by whom, why and at which level.

    Raises:
        DataContractError: Something was lost or added; nothing was published.
    """
    outcomes = ("decision", [decision.value for decision in Decision])
    counts = check_accounting(photos, staged, outcomes, "images_used", "images_rejected")
    columns = ("decision", "category_id", "decided_by", "review_reason", "reject_reason")
    by = {column: Counter[str | None]() for column in columns}
    by_level = {f"level_{level}": 0 for level in range(1, len(tree.levels) + 1)}
    exact = 0
    # A few rows a category, at most.
    for row in staged.groupBy(*columns).count().collect():
        for column in columns:
            by[column][row[column]] += row["count"]
        if row["decision"] == Decision.ASSIGNED.value:
            by_level[f"level_{len(tree.taxonomy[row['category_id']].path)}"] += row["count"]
            exact += row["count"] if row["category_id"] in tree.exact else 0
    return {
        "listings": counts["listings"],
        **{decision.value: counts[decision.value] for decision in Decision},
        "decided_by": dict(sorted(by["decided_by"].items())),
        "review_reasons": {r.value: by["review_reason"][r.value] for r in ReviewReason},
        "reject_reasons": {why: n for why, n in by["reject_reason"].items() if why is not None},
        "photos": counts["photos"],
        "photos_used": counts["images_used"],
        "photos_rejected": counts["images_rejected"],
        "rows_without_listing": counts["rows_without_listing"],
        "assigned_by_level": by_level,
        "assigned_exact": exact,
    }


def _rates(counts: dict[str, Any]) -> dict[str, float]:
    """Shares of the listings by decision (`coverage`: assigned), and of photos rejected."""
    listings, photos = max(1, counts["listings"]), max(1, counts["photos"])
    return {
        "coverage": round(counts[Decision.ASSIGNED] / listings, 4),
        "exact_coverage": round(counts["assigned_exact"] / listings, 4),
        "needs_review_rate": round(counts[Decision.NEEDS_REVIEW] / listings, 4),
        "unfamiliar_rate": round(counts["review_reasons"][ReviewReason.UNFAMILIAR] / listings, 4),
        "rejected_rate": round(counts[Decision.REJECTED] / listings, 4),
        "photos_rejected_rate": round(counts["photos_rejected"] / photos, 4),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(CategorizeListings, categorize, argv)


if __name__ == "__main__":
    sys.exit(main())
