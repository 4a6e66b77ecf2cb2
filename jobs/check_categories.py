"""Check a published partition of categories against the manifest partition it was made from.

    python -m jobs.check_categories --manifest manifest --ds 2026-11-25 --output categories

Reads what readers see, and knows nothing of the run that wrote it. The rows stay on the executors;
only counts and an example of what is wrong reach the driver.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pydantic import Field
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from jobs.manifest import read_photos
from jobs.progress import show_progress
from jobs.report import write_report
from jobs.session import local_uri, start_session
from jobs.settings import JobSettings, run_job
from schemas.categories import Decision, check_categories
from schemas.errors import DataContractError, SettingsError


class CheckCategories(JobSettings):
    """Check that the published categories are those of the manifest's listings, each once."""

    manifest: str = Field(description="the manifest's folder")
    ds: date = Field(description="the partition's date, YYYY-MM-DD")
    output: str = Field(description="the categories' folder, on a local or mounted file system")


def check(settings: CheckCategories) -> None:
    """Read both partitions, compare, report."""
    if "://" in settings.output:
        raise SettingsError(f"--output {settings.output}: must be a local or mounted folder")
    started = perf_counter()
    ds = settings.ds.isoformat()
    link = Path(settings.output) / f"ds={ds}"
    spark = start_session("check_categories")
    photos = read_photos(spark, settings.manifest, ds).where(F.col("listing_id").isNotNull())
    published = _read_published(spark, link)
    with show_progress(spark, "checking rows"):
        _check_rows(published, link)
    with show_progress(spark, "comparing listings"):
        _compare_listings(photos, published, link)
        figures = _count(photos, published, link)
    figures = {"ds": ds, **figures, "seconds": round(perf_counter() - started, 1)}
    write_report(figures, settings.report)


def _read_published(spark: SparkSession, link: Path) -> DataFrame:
    """One published run, whole, even if another one is published meanwhile."""
    run = Path(os.path.realpath(link))
    if not run.is_dir():
        raise DataContractError(f"{link}: nothing is published there")
    try:
        return spark.read.parquet(local_uri(run))
    except (AnalysisException, Py4JJavaError) as error:
        raise DataContractError(f"{link}: no Parquet in it, or a damaged file") from error


def _check_rows(published: DataFrame, link: Path) -> None:
    """The contract, batch by batch on the executors."""
    where = str(link)

    def problems(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            try:
                check_categories(pa.Table.from_batches([batch]), where)
            except DataContractError as error:
                yield pa.record_batch({"problem": [str(error)]})

    check_categories(published.limit(0).toArrow(), where)
    found = _one(published.mapInArrow(problems, "problem string").agg(F.min("problem")))[0]
    if found is not None:
        raise DataContractError(found)


def _compare_listings(photos: DataFrame, published: DataFrame, link: Path) -> None:
    """Every listing of the manifest has one row, and no other has any."""
    rows = published.groupBy("listing_id").agg(F.count("*").alias("rows"))
    came = photos.select("listing_id").distinct().withColumn("came", F.lit(1))
    kinds = {
        "missing": F.col("rows").isNull(),
        "not in the manifest": F.col("came").isNull(),
        "there more than once": F.col("rows") > 1,
    }
    both = came.join(rows, "listing_id", "full_outer")
    found = _one(
        both.agg(
            *[F.count_if(wrong).alias(kind) for kind, wrong in kinds.items()],
            *[F.min(F.when(w, F.col("listing_id"))).alias(f"eg {k}") for k, w in kinds.items()],
        )
    )
    wrong = [
        f"{found[kind]} {kind} (such as {found[f'eg {kind}']!r})" for kind in kinds if found[kind]
    ]
    if wrong:
        raise DataContractError(f"{link}: of its listings, {', '.join(wrong)}")


def _count(photos: DataFrame, published: DataFrame, link: Path) -> dict[str, Any]:
    came = _one(photos.agg(F.count("*").alias("photos")))
    went = _one(
        published.agg(
            F.count("*").alias("listings"),
            *[F.count_if(F.col("decision") == d.value).alias(d.value) for d in Decision],
            F.coalesce(F.sum("images_used"), F.lit(0)).alias("photos_used"),
            F.coalesce(F.sum("images_rejected"), F.lit(0)).alias("photos_rejected"),
            F.countDistinct("run_id").alias("runs"),
            *[F.max(name).alias(name) for name in ("run_id", "model_name", "model_version")],
        )
    )
    if went["runs"] > 1:
        raise DataContractError(f"{link}: holds the rows of {went['runs']} runs")
    if came["photos"] != went["photos_used"] + went["photos_rejected"]:
        raise DataContractError(
            f"{link}: {went['photos_used']} photos used and {went['photos_rejected']} rejected, "
            f"but the manifest has {came['photos']}"
        )
    return {name: value for name, value in went.asDict().items() if name != "runs"}


def _one(frame: DataFrame) -> Row:
    row = frame.first()
    assert row is not None  # noqa: S101 - aggregates without groups are one row
    return row


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(CheckCategories, check, argv)


if __name__ == "__main__":
    sys.exit(main())
