"""Categorize the listings of a manifest partition and publish their categories.

    python -m jobs.categorize_listings --manifest manifest --ds 2026-11-25 --output categories

or through spark-submit, with `--py-files dist/seer-categories.zip`, from this file.
"""

import logging
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import Field
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.drift_report import drift_figures
from jobs.embedding import EmbeddedPhotos, embed_photos
from jobs.embedding_store import despite_damage, hold_store
from jobs.manifest import describe_data, read_photos
from jobs.photo_settings import PhotoSettings
from jobs.progress import show_progress
from jobs.publish import hold_partition
from jobs.report import write_report
from jobs.scoring import score_photos
from jobs.session import local_uri, start_session
from jobs.settings import run_job
from jobs.worker import ship_model
from schemas.categories import CATEGORIES, Decision
from schemas.errors import DataContractError, SettingsError
from seer_model import registry
from seer_model.registry import ResolvedBundle

log = logging.getLogger(__name__)


class CategorizeListings(PhotoSettings):
    """Categorize every listing of a manifest partition and publish one row for each."""

    manifest: str = Field(description="the manifest's folder")
    ds: date = Field(description="the partition's date, YYYY-MM-DD")
    model: str = Field(
        "models:/listing-categorizer@champion",
        description="models:/name@alias, models:/name/3, runs:/… or a bundle's folder",
    )
    output: str = Field(description="the categories' folder, on a local or mounted file system")
    embeddings: Path | None = Field(None, description="embedding store to use and fill")
    drift_warning: float = Field(
        0.2,
        gt=0,
        description="warn of a population stability index above this, against the last day before",
    )


def categorize(settings: CategorizeListings) -> None:
    """Resolve, embed, score, check, publish, compare with the day before, report.

    Once the categories are published nothing that MLflow or the comparison may run into fails the
    job. The run has the numbers of the report as metrics, those of `drift` as `drift.NAME`.
    """
    if "://" in settings.output:
        raise SettingsError(f"--output {settings.output}: must be a local or mounted folder")
    ds = settings.ds.isoformat()
    registry.connect(settings.tracking_uri)
    model = registry.resolve_bundle(settings.model)
    log.info("model %s version %s, bundle %s", model.name, model.version, model.bundle.digest[:12])
    spark = start_session("categorize_listings")
    photos = read_photos(spark, settings.manifest, ds)
    parameters = settings.model_dump(exclude={"tracking_uri", "report"})
    with registry.tracked_run("categorize_listings", parameters) as run_id:
        with (
            hold_partition(Path(settings.output), ds, run_id) as partition,
            hold_store(settings.embeddings, exclusive=False),
        ):
            registry.log_data(describe_data(photos, settings.manifest, ds))
            if settings.model.startswith("models:/"):
                registry.link_model(model.name, model.version)
            started = perf_counter()
            shipped = ship_model(spark, model.folder, model.bundle.digest)
            backbone, store = model.bundle.backbone.digest, settings.embeddings

            def stage() -> EmbeddedPhotos:
                embedded = embed_photos(
                    photos.where(F.col("listing_id").isNotNull()),
                    shipped,
                    backbone,
                    store,
                    partition.work,
                    settings.photo_limits(),
                )
                rows = _with_origin(score_photos(embedded.photos, shipped), model, run_id)
                with show_progress(spark, "scoring listings"):
                    rows.write.mode("overwrite").parquet(local_uri(partition.staged))
                return embedded

            embedded, damaged = despite_damage(spark, store, backbone, stage)
            staged = spark.read.parquet(local_uri(partition.staged))
            counts = _check_counts(photos, staged)
            seconds = perf_counter() - started
            partition.publish()
        rate = embedded.embedded / seconds
        figures: dict[str, Any] = {
            "ds": ds,
            "model": f"{model.name} version {model.version}",
            "bundle_digest": model.bundle.digest,
            "backbone": f"{model.bundle.backbone.architecture}: {model.bundle.backbone.origin}",
            "taxonomy_version": model.bundle.tree.taxonomy.version,
            **counts,
            **_rates(counts),
            "photos_embedded": embedded.embedded,
            "devices": embedded.devices,
            "store_files_damaged": damaged,
            "seconds": round(seconds, 1),
            "photos_per_second": round(rate, 1),
            "published": str(partition.link),
            "run_id": run_id,
            "drift": drift_figures(spark, Path(settings.output), ds, settings.drift_warning),
        }
        registry.log_figures(figures)
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
    for name, value in origin.items():
        scores = scores.withColumn(name, F.lit(value))
    return scores.select(*CATEGORIES.names)


def _check_counts(photos: DataFrame, staged: DataFrame) -> dict[str, Any]:
    """Listings in = listings out, each once, each decided.

    Raises:
        DataContractError: They differ; nothing was published.
    """
    came = photos.agg(
        F.countDistinct("listing_id").alias("listings"),
        F.count("listing_id").alias("photos"),
        F.count_if(F.col("listing_id").isNull()).alias("rows_without_listing"),
    ).first()
    went = staged.agg(
        F.count("*").alias("rows"),
        F.countDistinct("listing_id").alias("listings"),
        *[F.count_if(F.col("decision") == d.value).alias(d.value) for d in Decision],
        F.coalesce(F.sum("images_used"), F.lit(0)).alias("used"),
        F.coalesce(F.sum("images_rejected"), F.lit(0)).alias("rejects"),
    ).first()
    assert came is not None  # noqa: S101 - aggregates without groups are one row
    assert went is not None  # noqa: S101
    decided = sum(went[d.value] for d in Decision)
    if not came.listings == went.listings == went.rows == decided:
        raise DataContractError(
            f"{came.listings} listings in, but {went.rows} rows out for {went.listings} listings, "
            f"{decided} with a decision: nothing was published"
        )
    if came.photos != went.used + went.rejects:
        raise DataContractError(
            f"{came.photos} photos in, but {went.used} used and {went.rejects} rejected: "
            "nothing was published"
        )
    reasons = staged.groupBy("reject_reason").count().where("reject_reason is not null").collect()
    return {
        "listings": came.listings,
        **{d.value: went[d.value] for d in Decision},
        "reject_reasons": {row["reject_reason"]: row["count"] for row in reasons},
        "photos": came.photos,
        "photos_used": went.used,
        "photos_rejected": went.rejects,
        "rows_without_listing": came.rows_without_listing,
    }


def _rates(counts: dict[str, Any]) -> dict[str, float]:
    """Shares of the listings, and of the photos; `coverage` is that of the listings assigned."""
    listings, photos = max(1, counts["listings"]), max(1, counts["photos"])
    return {
        "coverage": round(counts[Decision.ASSIGNED] / listings, 4),
        "needs_review_rate": round(counts[Decision.NEEDS_REVIEW] / listings, 4),
        "rejected_rate": round(counts[Decision.REJECTED] / listings, 4),
        "photos_rejected_rate": round(counts["photos_rejected"] / photos, 4),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(CategorizeListings, categorize, argv)


if __name__ == "__main__":
    sys.exit(main())
