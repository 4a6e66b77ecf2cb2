"""Check a published partition of categories against the manifest partition it was made from.

    python -m jobs.check_categories --manifest manifest --ds 2026-11-25 --output categories

Reads what readers see, independently of the run that wrote it. The rows stay on the executors;
only counts and one example of each fault reach the driver.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter
from typing import Any

from pydantic import Field

from jobs.command.locations import Location, ManifestLocation
from jobs.command.settings import Day, JobSettings, begin, run_job


class CheckCategories(JobSettings):
    """Check that every listing of the manifest is published once, and no other is."""

    manifest: ManifestLocation = Field(description="the manifest's folder or table")
    ds: Day = Field(description="the partition's date, YYYY-MM-DD")
    output: Location = Field(
        description="the categories' folder, local or mounted, or table:CATALOG.NAMESPACE.NAME"
    )


if __name__ == "__main__":
    begin(CheckCategories)  # Before the imports below, which take seconds.

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.command import job_run
from jobs.command.progress import show_progress
from jobs.command.report import write_report
from jobs.command.session import start_session
from jobs.stages.aggregates import aggregate
from jobs.stages.manifest import read_photos
from jobs.stages.publish.opening import CATEGORIES_TABLE, open_output
from schemas.categories import Decision, ReviewReason, check_categories
from schemas.errors import DataContractError


def check(settings: CheckCategories) -> None:
    """Read both partitions, compare, report."""
    ds = settings.ds.isoformat()
    job_run.reads(settings.manifest, ds=ds)
    job_run.reads(settings.output, ds=ds)
    started = perf_counter()
    spark = start_session("check_categories")
    photos = read_photos(spark, settings.manifest, ds).where(F.col("listing_id").isNotNull())
    output = open_output(spark, settings.output, CATEGORIES_TABLE)
    published, where = output.read(spark, ds), output.describe(ds)
    with show_progress(spark, "checking rows"):
        _check_rows(published, where)
    with show_progress(spark, "comparing listings"):
        _compare_listings(photos, published, where)
        figures = _count(photos, published, where)
    figures = {"ds": ds, **figures, "seconds": round(perf_counter() - started, 1)}
    write_report(figures, settings.report)


def _check_rows(published: DataFrame, where: str) -> None:
    """Check the contract, batch by batch on the executors."""

    def problems(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            try:
                check_categories(pa.Table.from_batches([batch]), where)
            except DataContractError as error:
                yield pa.record_batch({"problem": [str(error)]})

    check_categories(published.limit(0).toArrow(), where)
    first = aggregate(published.mapInArrow(problems, "problem string"), F.min("problem"))[0]
    if first is not None:
        raise DataContractError(first)


def _compare_listings(photos: DataFrame, published: DataFrame, where: str) -> None:
    """Check that every listing of the manifest has one row, and no other listing has any."""
    rows = published.groupBy("listing_id").agg(F.count("*").alias("rows"))
    listings = photos.select("listing_id").distinct().withColumn("in_manifest", F.lit(1))
    faults = {
        "missing": F.col("rows").isNull(),
        "not in the manifest": F.col("in_manifest").isNull(),
        "there more than once": F.col("rows") > 1,
    }
    found = aggregate(
        listings.join(rows, "listing_id", "full_outer"),
        *[F.count_if(fault).alias(name) for name, fault in faults.items()],
        *[F.min(F.when(f, F.col("listing_id"))).alias(f"eg {name}") for name, f in faults.items()],
    )
    wrong = [f"{found[f]} {f} (such as {found[f'eg {f}']!r})" for f in faults if found[f]]
    if wrong:
        raise DataContractError(f"{where}: of its listings, {', '.join(wrong)}")


def _count(photos: DataFrame, published: DataFrame, where: str) -> dict[str, Any]:
    """Check that no photo was lost and that one run wrote all rows; returns the counts."""
    read = aggregate(photos, F.count("*").alias("photos"))["photos"]
    if not read:
        raise DataContractError(f"{where}: no row of its manifest has a listing_id")
    counts = aggregate(
        published,
        F.count("*").alias("listings"),
        *[F.count_if(F.col("decision") == d.value).alias(d.value) for d in Decision],
        *[F.count_if(F.col("review_reason") == r.value).alias(r.value) for r in ReviewReason],
        F.coalesce(F.sum("images_used"), F.lit(0)).alias("photos_used"),
        F.coalesce(F.sum("images_rejected"), F.lit(0)).alias("photos_rejected"),
        F.countDistinct("run_id").alias("runs"),
        *[F.max(name).alias(name) for name in ("run_id", "model_name", "model_version")],
    ).asDict()
    if (runs := counts.pop("runs")) > 1:
        raise DataContractError(f"{where}: holds the rows of {runs} runs")
    if read != counts["photos_used"] + counts["photos_rejected"]:
        raise DataContractError(
            f"{where}: {counts['photos_used']} photos used and {counts['photos_rejected']} "
            f"rejected, but the manifest has {read}"
        )
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(CheckCategories, check, argv)


if __name__ == "__main__":
    sys.exit(main())
