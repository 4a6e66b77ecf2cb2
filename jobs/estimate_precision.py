"""Estimate the precision of what was assigned, week by week, from what people decided.

    python -m jobs.estimate_precision --reviews reviews --labels labels --taxonomy tree.csv \
        --page precision.html

Counts the assigned listings that `jobs.select_reviews` drew at random, `random` and `audit`.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import Field

from jobs.command.locations import Location
from jobs.command.settings import JobSettings, begin, run_job


class EstimatePrecision(JobSettings):
    """Estimate how often the categories assigned are right, without bias."""

    reviews: Path = Field(description="folder of the review queues, ds=…/reviews.parquet")
    labels: Location = Field(description="what people decided, a folder or a table")
    taxonomy: Path = Field(description="CSV, Shopify's or Google's taxonomy file")
    page: Path = Field(description="write the HTML page to this file (MLflow has it as well)")
    target_precision: float | None = Field(
        None, gt=0, lt=1, description="the precision aimed at, for the page"
    )


if __name__ == "__main__":
    begin(EstimatePrecision)  # Before the imports below, which take seconds.

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from jobs.command import job_run
from jobs.command.report import write_report
from jobs.command.session import start_session
from jobs.pages.precision import precision_page
from jobs.stages.decisions import decided_now
from jobs.stages.review_queue import queue_days, read_queue
from schemas.categories import Decision
from schemas.labels import LabelDecision, Selection
from schemas.taxonomy import Taxonomy
from schemas.taxonomy_readers import read_taxonomy
from seer_model.evaluation.audits import AuditedDay, precision_by_week
from seer_model.tracking import runs

log = logging.getLogger(__name__)

_AT_RANDOM = (Selection.RANDOM, Selection.AUDIT)


def estimate(settings: EstimatePrecision) -> None:
    """Read the queues, join what was decided, estimate, write the page, report."""
    started = perf_counter()
    runs.connect(settings.tracking_uri)
    taxonomy = read_taxonomy(settings.taxonomy)
    queues = {ds: _drawn(settings.reviews, ds) for ds in queue_days(settings.reviews)}
    drawn = [name for queue in queues.values() for name in queue["listing_id"].to_pylist()]
    spark = start_session("estimate_precision")
    with runs.tracked_run("estimate_precision", settings.run_parameters()) as run_id:
        decided = _decided(spark, settings, drawn)
        days = [_audit(ds, queue, decided, taxonomy) for ds, queue in queues.items()]
        weeks = precision_by_week(days)
        page = precision_page(weeks, settings.target_precision)
        settings.page.parent.mkdir(parents=True, exist_ok=True)
        settings.page.write_text(page, encoding="utf-8")
        runs.log_text(page, "precision.html")
        for step, week in enumerate(weeks):
            shown = ("precision", "low", "high", "decided")
            runs.log_figures({name: getattr(week, name) for name in shown}, step=step)
        job_run.reads(settings.reviews, rows=len(drawn))
        job_run.reads(settings.labels, rows=len(decided))
        job_run.reads(settings.taxonomy)
        figures = {
            "days": len(days),
            "drawn": len(drawn),
            "assigned_drawn": sum(day.right + day.wrong + day.undecided for day in days),
            "decided": sum(day.right + day.wrong for day in days),
            "undecided": sum(day.undecided for day in days),
            "weeks": [{**asdict(week), "week": week.week.isoformat()} for week in weeks],
            "page": str(settings.page),
            "run_id": run_id,
            "seconds": round(perf_counter() - started, 1),
        }
        write_report(figures, settings.report)


def _drawn(folder: Path, ds: date) -> pa.Table:
    """The listings of a day's queue that were drawn at random."""
    queue = read_queue(folder, ds.isoformat())
    return queue.filter(pc.is_in(queue["selection"], pa.array(map(str, _AT_RANDOM))))


def _decided(
    spark: SparkSession, settings: EstimatePrecision, listings: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """What was decided of listings, by listing."""
    newest = decided_now(spark, settings.labels)
    assert newest is not None  # noqa: S101 - the flag is required
    ids = spark.createDataFrame(pa.table({"listing_id": pa.array(listings, pa.string())}))
    rows = newest.join(ids, "listing_id", "left_semi").toArrow().to_pylist()
    return {row["listing_id"]: row for row in rows}


def _audit(
    ds: date, queue: pa.Table, decided: dict[str, dict[str, Any]], taxonomy: Taxonomy
) -> AuditedDay:
    """Count what was decided of a day's assigned listings."""
    rows = queue.to_pylist()
    verdicts = [
        _is_right(row, decided.get(row["listing_id"]), taxonomy)
        for row in rows
        if row["decision"] == Decision.ASSIGNED
    ]
    return AuditedDay(
        ds,
        _assigned(rows),
        right=sum(verdict is True for verdict in verdicts),
        wrong=sum(verdict is False for verdict in verdicts),
        undecided=sum(verdict is None for verdict in verdicts),
    )


def _assigned(rows: Sequence[dict[str, Any]]) -> int:
    """How many listings were assigned: what was drawn from, or the random ones' share of it."""
    audits: list[int] = [row["drawn_from"] for row in rows if row["selection"] == Selection.AUDIT]
    random = [row for row in rows if row["selection"] == Selection.RANDOM]
    if audits or not random:
        return max(audits, default=0)
    assigned: int = sum(row["decision"] == Decision.ASSIGNED for row in random)
    drawn_from: int = random[0]["drawn_from"]
    return round(drawn_from * assigned / len(random))


def _is_right(
    row: dict[str, Any], decided: dict[str, Any] | None, taxonomy: Taxonomy
) -> bool | None:
    """Whether the assigned category is right; None if what was decided does not tell."""
    match decided and decided["decision"]:
        case LabelDecision.NOT_IN_TAXONOMY:
            return False
        case LabelDecision.CATEGORY if decided and decided["category_id"] in taxonomy:
            assigned = row["category_path"]
            chosen = taxonomy[decided["category_id"]].path
            if list(chosen[: len(assigned)]) == list(assigned):
                return True
            # One who chose a category above the assigned one did not say whether it is right.
            return None if list(assigned[: len(chosen)]) == list(chosen) else False
        case _:
            return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(EstimatePrecision, estimate, argv)


if __name__ == "__main__":
    sys.exit(main())
