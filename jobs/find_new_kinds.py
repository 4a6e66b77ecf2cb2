"""Find new kinds of goods among a day's listings that need review: groups of them that are alike.

    python -m jobs.find_new_kinds --categories categories --ds 2026-11-25 --manifest manifest \
        --embeddings embeddings --output new-kinds

Writes `ds=…/new_kinds.parquet`, whose listings can be labelled cluster by cluster, and beside it
`new_kinds.html`, which shows each cluster's photos and the known categories that are nearest.
"""

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import Field

from jobs.command.locations import Location, ManifestLocation
from jobs.command.photo_settings import SCRATCH, PhotoSettings
from jobs.command.settings import Day, begin, run_job
from schemas.categories import ReviewReason


class FindNewKinds(PhotoSettings):
    """Cluster a day's unfamiliar listings, so that new kinds of goods can be seen and labelled."""

    categories: Location = Field(description="the published categories, a folder or a table")
    ds: Day = Field(description="the partition's date, YYYY-MM-DD")
    manifest: ManifestLocation = Field(description="the manifest's folder or table")
    model: str = Field(
        "models:/listing-categorizer@champion",
        description="the model that the day was categorized with, named as for categorize_listings",
    )
    output: Path = Field(
        description="folder for ds=…/new_kinds.parquet and ds=…/new_kinds.html of each day"
    )
    embeddings: Location | None = Field(
        None, description="embedding store to read and add to, a folder or a table"
    )
    scratch: str | None = SCRATCH
    review_reasons: list[ReviewReason] = Field(
        [ReviewReason.UNFAMILIAR], description="listings to look at, unfamiliar or unsure"
    )
    most_listings: int = Field(
        4000, ge=1, le=10_000, description="look at so many at most; of more, at some by chance"
    )
    smallest: int = Field(5, ge=2, description="fewest listings of a cluster")


if __name__ == "__main__":
    begin(FindNewKinds)  # Before the imports below, which take seconds.

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from jobs.command import job_run
from jobs.command.progress import show_progress
from jobs.command.report import write_report
from jobs.command.session import start_session
from jobs.pages.new_kinds import EXAMPLES, SHOWN, Cluster, new_kinds_page
from jobs.stages.fingerprint import describe_data
from jobs.stages.listing_features import ListingFeatures, read_features
from jobs.stages.manifest import read_photos
from jobs.stages.publish.opening import CATEGORIES_TABLE, open_output
from jobs.stages.scratch import scratch_base, scratch_space
from jobs.stages.store.opening import hold_store, open_store
from jobs.stages.thumbnails import read_thumbnails
from jobs.stages.unread import check_drivers
from jobs.stages.worker import ship_model
from schemas.errors import DataContractError, SettingsError
from schemas.new_kinds import NEW_KINDS
from schemas.taxonomy import Taxonomy
from seer_model.categorizer.bundle import ResolvedBundle
from seer_model.categorizer.familiarity import Familiarity
from seer_model.evaluation.new_kinds import cluster_listings
from seer_model.photos.limits import PhotoLimits
from seer_model.tracking import registry, runs

log = logging.getLogger(__name__)

_NEAREST = 3


def find(settings: FindNewKinds) -> None:
    """Choose listings, embed what the store lacks, cluster, show, write, report.

    Raises:
        SettingsError: The model knows no familiarity, or is not the one that scored the day.
    """
    ds = settings.ds.isoformat()
    folder = settings.output / f"ds={ds}"
    runs.connect(settings.tracking_uri)
    model = registry.resolve_bundle(settings.model)
    familiarity = model.bundle.familiarity
    if familiarity is None:
        raise SettingsError(
            f"--model {settings.model}: knows no familiarity; train it again with this version"
        )
    started = perf_counter()
    spark = start_session("find_new_kinds")
    base = scratch_base(spark, settings.scratch, settings.output, settings.embeddings)
    with (
        runs.tracked_run("find_new_kinds", settings.run_parameters()) as run_id,
        hold_store(settings.embeddings),
        scratch_space(base) as scratch,
        open_store(settings.embeddings, model.bundle.backbone.digest, base) as store,
    ):
        chosen, counts = _choose_listings(spark, settings, model)
        ids = spark.createDataFrame(chosen.select(["listing_id"]))
        photos = read_photos(spark, settings.manifest, ds).join(ids, "listing_id", "left_semi")
        data = describe_data(photos, settings.manifest, ds)
        runs.log_data(data)
        job_run.reads(settings.categories, ds=ds, rows=counts["listings"])
        job_run.reads(settings.manifest, ds=ds, rows=data["rows"], version=data["digest"])
        job_run.reads_model(settings.model, model.version)
        check_drivers(data, settings)
        shipped = ship_model(spark, model.folder, model.bundle.digest)
        limits = settings.photo_limits()
        width = model.bundle.backbone.width
        found = read_features(photos, shipped, width, store, scratch, limits)
        table = _cluster(found, familiarity, settings.smallest)
        if lost := len(chosen) - len(table):
            log.warning("%d listings were left out: no photo of theirs can be read any more", lost)
        numbers = table["cluster"].drop_null().to_numpy()
        figures = {
            "ds": ds,
            "model": f"{model.name} version {model.version}",
            "review_reasons": [reason.value for reason in settings.review_reasons],
            **counts,
            "without_vector": lost,
            "clustered": len(numbers),
            "clusters": int(numbers.max(initial=0)),
            "photos_embedded": found.embedded,
            "store_files_damaged": store.quarantined,
            "output": str(folder),
            "run_id": run_id,
        }
        clusters = _show(table, chosen, model.bundle.tree.taxonomy, photos, limits)
        _write(table, new_kinds_page(figures, clusters), folder)
        job_run.adds_to(settings.embeddings, rows=found.embedded)
        job_run.writes(settings.output, ds=ds, rows=len(table), columns=NEW_KINDS)
        figures["seconds"] = round(perf_counter() - started, 1)
        runs.log_figures(figures)
        write_report(figures, settings.report)


def _choose_listings(
    spark: SparkSession, settings: FindNewKinds, model: ResolvedBundle
) -> tuple[pa.Table, dict[str, Any]]:
    """Choose listings to look at, the same ones on every run.

    Returns:
        `listing_id` and `candidates`, and counts for the report.

    Raises:
        DataContractError: The day is not published, or was before listings had a `review_reason`.
        SettingsError: Another model scored them.
    """
    ds = settings.ds.isoformat()
    output = open_output(spark, settings.categories, CATEGORIES_TABLE)
    rows, where = output.read(spark, ds), output.describe(ds)
    if "review_reason" not in rows.columns:
        raise DataContractError(f"{where}: has no column review_reason; categorize the day again")
    found = rows.where(
        F.col("review_reason").isin([each.value for each in settings.review_reasons])
    )
    with show_progress(spark, "reading the categories"):
        counts = {"listings": rows.count(), "to_review": found.count()}
        chosen = (
            found.orderBy(F.xxhash64("listing_id"), "listing_id")
            .limit(settings.most_listings)
            .select("listing_id", "candidates", "bundle_digest", "model_name", "model_version")
            .toArrow()
        )
    for row in chosen.to_pylist():
        if row["bundle_digest"] != model.bundle.digest:
            raise SettingsError(
                f"--model {settings.model} is {model.name} version {model.version}, but {where} "
                f"was scored by {row['model_name']} version {row['model_version']}: name that one"
            )
    return chosen.select(["listing_id", "candidates"]), {**counts, "looked_at": len(chosen)}


def _cluster(found: ListingFeatures, familiarity: Familiarity, smallest: int) -> pa.Table:
    """Cluster the listings; returns the table to write."""
    clustered = cluster_listings(found.features, familiarity, smallest)
    alone = clustered.cluster == 0
    columns = [
        pa.array(found.listing_ids, pa.string()),
        pa.array(clustered.cluster, pa.int32(), mask=alone),
        pa.array(clustered.distance, pa.float32(), mask=alone),
    ]
    order = [(name, "ascending") for name in ("cluster", "distance", "listing_id")]
    return pa.table(columns, schema=NEW_KINDS).sort_by(order)


def _show(
    table: pa.Table, chosen: pa.Table, taxonomy: Taxonomy, photos: DataFrame, limits: PhotoLimits
) -> list[Cluster]:
    """The largest clusters, with their nearest categories and with photos."""
    members: dict[int, list[str]] = {}
    for listing, number, _ in zip(*table.to_pydict().values(), strict=True):
        if number is not None and number <= SHOWN:
            members.setdefault(number, []).append(listing)
    candidates = dict(zip(*chosen.to_pydict().values(), strict=True))
    examples = [listing for listings in members.values() for listing in listings[:EXAMPLES]]
    thumbnails = read_thumbnails(photos, examples, limits) if examples else {}
    clusters = []
    for number, listings in members.items():
        scores = Counter[str]()
        for listing in listings:
            for candidate in candidates[listing]:
                scores[candidate["category_id"]] += candidate["score"] / len(listings)
        nearest = [
            (" > ".join(taxonomy[category].path), score)
            for category, score in scores.most_common(_NEAREST)
        ]
        shown = {each: thumbnails[each] for each in listings[:EXAMPLES] if each in thumbnails}
        clusters.append(Cluster(number, len(listings), nearest, shown))
    return clusters


def _write(table: pa.Table, page: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "new_kinds.parquet")
    (folder / "new_kinds.html").write_text(page, encoding="utf-8")
    runs.log_text(page, "new_kinds.html")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(FindNewKinds, find, argv)


if __name__ == "__main__":
    sys.exit(main())
