"""Select the listings of a published day that a person should decide: the review queue.

    python -m jobs.select_reviews --categories categories --ds 2026-11-25 --manifest manifest \
        --embeddings embeddings --labels labels --budget 500 --output reviews

Writes `ds=…/reviews.parquet`. A listing that was decided, that has a label in the manifest, or that
is in the queue of another day is not selected again.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Self

from pydantic import Field, model_validator

from jobs.command.locations import Location, ManifestLocation
from jobs.command.photo_settings import SCRATCH, PhotoSettings
from jobs.command.settings import Day, begin, run_job


class SelectReviews(PhotoSettings):
    """Select the listings whose labels teach the model most, and some to measure it by."""

    categories: Location = Field(description="the published categories, a folder or a table")
    ds: Day = Field(description="the partition's date, YYYY-MM-DD")
    manifest: ManifestLocation = Field(description="the manifest's folder or table")
    model: str = Field(
        "models:/listing-categorizer@champion",
        description="the model whose backbone's embeddings tell listings apart",
    )
    output: Path = Field(description="folder for ds=…/reviews.parquet of each day")
    embeddings: Location | None = Field(
        None, description="embedding store to read and add to, a folder or a table"
    )
    labels: Location | None = Field(
        None, description="what people decided already, a folder or a table"
    )
    scratch: str | None = SCRATCH
    budget: int = Field(500, ge=1, description="so many listings in all")
    random_share: float = Field(
        0.3,
        ge=0,
        le=1,
        description="share of the budget for listings drawn at random: the next model's thresholds "
        "rest on them",
    )
    audit_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share for assigned listings drawn at random: with them the precision is "
        "measured more closely",
    )
    most_listings: int = Field(
        20_000,
        ge=1,
        description="choose from so many that need review at most; of more, from some by chance",
    )
    seed: int = Field(0, description="seed of the draws")

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.audit_share + self.random_share > 1:
            raise ValueError("--random-share and --audit-share are more than 1 together")
        return self


if __name__ == "__main__":
    begin(SelectReviews)  # Before the imports below, which take seconds.

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from jobs.command import job_run
from jobs.command.folders import Folder
from jobs.command.progress import show_progress
from jobs.command.report import write_report
from jobs.command.session import local_uri, parquet_reader, start_session
from jobs.stages.aggregates import aggregate
from jobs.stages.decisions import read_decisions
from jobs.stages.fingerprint import describe_data
from jobs.stages.listing_features import ListingFeatures, read_features
from jobs.stages.manifest import read_photos
from jobs.stages.publish.opening import CATEGORIES_TABLE, open_output
from jobs.stages.review_queue import CHOSEN_FILE, queue_files, write_queue
from jobs.stages.scratch import scratch_base, scratch_space
from jobs.stages.store.base import EmbeddingStore
from jobs.stages.store.opening import hold_store, open_store
from jobs.stages.unread import check_drivers
from jobs.stages.worker import ship_model
from schemas.categories import CATEGORIES, DECIDED_BY_MODEL, Decision
from schemas.errors import DataContractError
from schemas.labels import CATEGORY_TASK, Selection
from schemas.reviews import REVIEWS
from seer_model.categorizer.bundle import ResolvedBundle
from seer_model.reviews.selection import margins, most_instructive
from seer_model.tracking import registry, runs

log = logging.getLogger(__name__)

_OF_CATEGORIES = [name for name in REVIEWS.names if name in CATEGORIES.names and name != "run_id"]


def select(settings: SelectReviews) -> None:
    """Draw, embed what the store lacks, choose, write, report."""
    ds = settings.ds.isoformat()
    target = settings.output / f"ds={ds}" / CHOSEN_FILE
    runs.connect(settings.tracking_uri)
    model = registry.resolve_bundle(settings.model)
    started = perf_counter()
    spark = start_session("select_reviews")
    base = scratch_base(spark, settings.scratch, settings.output, settings.embeddings)
    with (
        runs.tracked_run("select_reviews", settings.run_parameters()) as run_id,
        hold_store(settings.embeddings),
        scratch_space(base) as scratch,
        open_store(settings.embeddings, model.bundle.backbone.digest, base) as store,
    ):
        photos = read_photos(spark, settings.manifest, ds)
        open_listings, counts = _open_listings(spark, settings, photos)
        drawn, pool = _draw(open_listings, counts, settings)
        found = _read_pool(spark, photos, pool, model, store, scratch, settings)
        chosen = _choose(pool, found, settings.budget - len(drawn))
        table = _queue(drawn, chosen, model, settings.seed)
        write_queue(table, target, {"task": CATEGORY_TASK, "run_id": run_id})
        job_run.reads(settings.categories, ds=ds, rows=counts["listings"])
        job_run.reads_model(settings.model, model.version)
        job_run.reads(settings.labels)
        job_run.adds_to(settings.embeddings, rows=found.embedded)
        job_run.writes(settings.output, ds=ds, rows=len(table), columns=REVIEWS)
        selections = table["selection"].to_pylist()
        figures = {
            "ds": ds,
            "model": f"{model.name} version {model.version}",
            **counts,
            "looked_at": len(pool),
            "without_vector": len(pool) - len(found.listing_ids),
            "selected": {
                each.value: selections.count(each.value)
                for each in (Selection.RANDOM, Selection.AUDIT, Selection.INSTRUCTIVE)
            },
            "budget_left": settings.budget - len(table),
            "photos_embedded": found.embedded,
            "store_files_damaged": store.quarantined,
            "output": str(target),
            "run_id": run_id,
            "seconds": round(perf_counter() - started, 1),
        }
        if figures["budget_left"]:
            log.warning("only %d listings are left to select", len(table))
        runs.log_figures(figures)
        write_report(figures, settings.report)


def _open_listings(
    spark: SparkSession, settings: SelectReviews, photos: DataFrame
) -> tuple[DataFrame, dict[str, int]]:
    """The day's listings that have no label and that nobody was asked about.

    Returns:
        Rows of the categories table, with `draw`, a number by which to draw at random; and counts:
        all `listings`, how many are left out and why, and those left by decision.

    Raises:
        DataContractError: The day is not published, or was before its rows said who decided.
    """
    ds = settings.ds.isoformat()
    output = open_output(spark, settings.categories, CATEGORIES_TABLE)
    published, where = output.read(spark, ds), output.describe(ds)
    if "decided_by" not in published.columns:
        raise DataContractError(f"{where}: has no column decided_by; categorize the day again")
    decided = published.where(F.col("decided_by") != DECIDED_BY_MODEL).select("listing_id")
    if settings.labels is not None:
        by_people = read_decisions(spark, settings.labels).where(F.col("task") == CATEGORY_TASK)
        decided = decided.union(by_people.select("listing_id"))
    reasons = {
        "labelled": photos.where("category_id is not null").select("listing_id"),
        "asked_before": _asked_before(spark, settings),
        "decided": decided,
    }
    rows = published.select(*_OF_CATEGORIES)
    for name, ids in reasons.items():
        marked = ids.distinct().withColumn(name, F.lit(True))
        rows = rows.join(marked, "listing_id", "left")
    out = {name: F.coalesce(F.col(name), F.lit(False)) for name in reasons}
    is_open = ~F.greatest(*out.values())
    with show_progress(spark, "reading the categories"):
        counts = aggregate(
            rows,
            F.count("*").alias("listings"),
            *(F.count_if(marked).alias(name) for name, marked in out.items()),
            *(
                F.count_if(is_open & (F.col("decision") == each.value)).alias(f"open_{each.value}")
                for each in Decision
            ),
        ).asDict()
    draw = F.xxhash64(F.lit(settings.seed), "listing_id")
    return rows.where(is_open).drop(*reasons).withColumn("draw", draw), counts


def _asked_before(spark: SparkSession, settings: SelectReviews) -> DataFrame:
    """The listings in the queues of other days."""
    own = f"ds={settings.ds.isoformat()}"
    queues = queue_files(settings.output)
    files = [local_uri(queue) for queue in queues if queue.parent.name != own]
    if not files:
        return spark.createDataFrame([], "listing_id string")
    return parquet_reader(spark).parquet(*files).select("listing_id")


def _draw(
    open_listings: DataFrame, counts: dict[str, int], settings: SelectReviews
) -> tuple[pa.Table, pa.Table]:
    """Draw listings at random to measure by, and those to choose the others from.

    Returns:
        The drawn ones: some of all, and some of the assigned ones that are left. And at most
        `most_listings` of those left that need review, by id.
    """
    decision, budget = F.col("decision"), settings.budget
    usable = open_listings.where(decision != Decision.REJECTED.value)
    random = _first(usable, round(budget * settings.random_share))
    taken = open_listings.sparkSession.createDataFrame(random.select(["listing_id"]))
    left = usable.join(taken, "listing_id", "left_anti").select(usable.columns)
    assigned = left.where(decision == Decision.ASSIGNED.value)
    audit = _first(assigned, round(budget * settings.audit_share))
    to_review = left.where(decision == Decision.NEEDS_REVIEW.value)
    pool = _first(to_review, settings.most_listings).sort_by("listing_id")
    of_assigned = counts["open_assigned"]
    of_all = of_assigned + counts["open_needs_review"]
    drawn = [
        _selected(random, Selection.RANDOM, of_all),
        _selected(audit, Selection.AUDIT, of_assigned),
    ]
    return pa.concat_tables(drawn), pool


def _first(listings: DataFrame, count: int) -> pa.Table:
    """The first listings in the order of the draw."""
    return listings.orderBy("draw", "listing_id").limit(count).drop("draw").toArrow()


def _selected(rows: pa.Table, selection: Selection, drawn_from: int | None) -> pa.Table:
    for name, value in (("selection", selection.value), ("drawn_from", drawn_from)):
        column = pa.array([value] * len(rows), REVIEWS.field(name).type)
        rows = rows.append_column(REVIEWS.field(name), column)
    return rows


def _read_pool(
    spark: SparkSession,
    photos: DataFrame,
    pool: pa.Table,
    model: ResolvedBundle,
    store: EmbeddingStore,
    scratch: Folder,
    settings: SelectReviews,
) -> ListingFeatures:
    """The features of the listings to choose from."""
    photos = photos.join(
        spark.createDataFrame(pool.select(["listing_id"])), "listing_id", "left_semi"
    )
    data = describe_data(photos, settings.manifest, settings.ds.isoformat())
    runs.log_data(data)
    job_run.reads(settings.manifest, ds=data["ds"], rows=data["rows"], version=data["digest"])
    check_drivers(data, settings)
    shipped = ship_model(spark, model.folder, model.bundle.digest)
    width = model.bundle.backbone.width
    return read_features(photos, shipped, width, store, scratch, settings.photo_limits())


def _choose(pool: pa.Table, found: ListingFeatures, count: int) -> pa.Table:
    """Choose the most instructive listings, the first choice first."""
    usable = pool.filter(pc.is_in(pool["listing_id"], pa.array(found.listing_ids, pa.string())))
    assert usable["listing_id"].to_pylist() == found.listing_ids  # noqa: S101 - both are sorted
    best_two = [[c["score"] for c in row[:2]] for row in usable["candidates"].to_pylist()]
    margin = margins(np.array(best_two, np.float64).reshape(-1, 2))
    chosen = usable.take(pa.array(most_instructive(found.features, margin, count)))
    return _selected(chosen, Selection.INSTRUCTIVE, None)


def _queue(drawn: pa.Table, chosen: pa.Table, model: ResolvedBundle, seed: int) -> pa.Table:
    """Mix the listings drawn into the chosen ones, so that any beginning of the queue has both."""
    rng = np.random.default_rng(seed)
    rows = pa.concat_tables([drawn.take(pa.array(rng.permutation(len(drawn)))), chosen])
    is_chosen = rng.permutation(np.arange(len(rows)) >= len(drawn))
    rows = rows.take(pa.array(np.argsort(np.argsort(is_chosen, kind="stable"))))
    taxonomy = model.bundle.tree.taxonomy

    def name(category: str) -> str:
        return taxonomy[category].name if category in taxonomy else category

    explanations = []
    for row in rows.to_pylist():
        match Selection(row["selection"]):
            case Selection.AUDIT:
                why = f"drawn at random from {row['drawn_from']} assigned listings"
            case Selection.RANDOM:
                why = f"drawn at random from {row['drawn_from']} listings"
            case _:
                best = [f"{name(c['category_id'])} {c['score']:.2f}" for c in row["candidates"][:2]]
                why = f"{' or '.join(best)}? unlike the others chosen"
        explanations.append(why)
    return rows.append_column("explanation", pa.array(explanations, pa.string()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(SelectReviews, select, argv)


if __name__ == "__main__":
    sys.exit(main())
