"""Import decisions on listings into the labels table: each once, however often it is run.

    python -m jobs.import_reviews --decisions decided.csv --taxonomy tree.csv --labels labels

A CSV has the columns `listing_id` and `category_id`, `decision` or both, and optionally `reviewer`,
`reason`, `decided_at` and `expires_at`.
"""

import logging
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import Field

from jobs.command.locations import Location
from jobs.command.settings import JobSettings, check_arguments, run_job
from schemas.labels import CATEGORY_TASK, LabelSource


class ImportReviews(JobSettings):
    """Import what people or rules decided of listings."""

    decisions: Path = Field(description="CSV: listing_id, category_id or decision[, reviewer, …]")
    taxonomy: Path = Field(description="CSV, Shopify's or Google's taxonomy file")
    labels: Location = Field(description="where decisions are kept, a folder or a table")
    source: LabelSource = Field(
        LabelSource.IMPORT, description="where they come from: review, import or rule"
    )
    reviewer: str | None = Field(
        None, description="who decided, where the file does not say (default: the file's name)"
    )


if __name__ == "__main__":
    check_arguments(ImportReviews)  # Before the imports below, which take seconds.

import pyarrow as pa
import pyarrow.compute as pc

from jobs.command import job_run
from jobs.command.report import write_report
from jobs.command.session import start_session
from jobs.stages.decision_table import read_decision_table
from jobs.stages.decisions import add_decisions
from schemas.errors import DataContractError
from schemas.labels import LABELS
from schemas.taxonomy import Taxonomy
from schemas.taxonomy_readers import read_taxonomy
from seer_model.tracking import runs

log = logging.getLogger(__name__)


def import_decisions(settings: ImportReviews) -> None:
    """Read, refuse categories that the tree does not have, add, report.

    Raises:
        DataContractError: No decision is for a category of the tree.
    """
    started = perf_counter()
    runs.connect(settings.tracking_uri)
    taxonomy = read_taxonomy(settings.taxonomy)
    read = read_decision_table(
        settings.decisions,
        task=CATEGORY_TASK,
        source=settings.source,
        reviewer=settings.reviewer,
        taxonomy_version=taxonomy.version,
    )
    accepted = _of_the_tree(read, taxonomy, settings.decisions)
    spark = start_session("import_reviews")
    with runs.tracked_run("import_reviews", settings.run_parameters()) as run_id:
        added = add_decisions(spark, settings.labels, accepted, run_id)
        job_run.reads(settings.decisions, rows=len(read))
        job_run.reads(settings.taxonomy)
        job_run.writes(settings.labels, rows=added, columns=LABELS)
        names, counts = pc.value_counts(accepted["decision"]).flatten()
        figures = {
            "decisions": len(read),
            "refused": len(read) - len(accepted),
            "added": added,
            "there_already": len(accepted) - added,
            "by_decision": dict(zip(names.to_pylist(), counts.to_pylist(), strict=True)),
            **_agreement(accepted),
            "taxonomy_version": taxonomy.version,
            "labels": str(settings.labels),
            "run_id": run_id,
            "seconds": round(perf_counter() - started, 1),
        }
        runs.log_figures(figures)
        write_report(figures, settings.report)


def _of_the_tree(decisions: pa.Table, taxonomy: Taxonomy, path: Path) -> pa.Table:
    """Leave out decisions for categories that the taxonomy lacks, and say so."""
    if not len(decisions):
        raise DataContractError(f"{path}: has no decision")
    categories = decisions["category_id"]
    known = pa.array([name is None or name in taxonomy for name in categories.to_pylist()])
    accepted, refused = decisions.filter(known), decisions.filter(pc.invert(known))
    if len(refused):
        example = refused.slice(0, 1).to_pylist()[0]
        said = (
            f"{path}: {len(refused)} of {len(decisions)} decisions are for categories that the "
            f"taxonomy {taxonomy.version} lacks, such as {example['category_id']!r} of listing "
            f"{example['listing_id']!r}"
        )
        if not len(accepted):
            raise DataContractError(said)
        log.warning("%s; they are refused", said)
    return accepted


def _agreement(decisions: pa.Table) -> dict[str, Any]:
    """How often two reviewers who saw the same listing decided alike: a share of such pairs."""
    newest: dict[tuple[str, str], tuple[Any, ...]] = {}
    columns = ("listing_id", "reviewer", "decided_at", "decision", "category_id")
    for row in decisions.select(columns).to_pylist():
        listing, reviewer, *decided = row.values()
        key, found = (listing, reviewer), (decided[0], *map(str, decided[1:]))
        newest[key] = max(newest.get(key, found), found)
    by_listing: dict[str, list[tuple[Any, ...]]] = {}
    for (listing, _), (_, *decided) in newest.items():
        by_listing.setdefault(listing, []).append(tuple(decided))
    pairs = [a == b for found in by_listing.values() for a, b in combinations(found, 2)]
    return {
        "listings": len(by_listing),
        "seen_by_several": sum(len(found) > 1 for found in by_listing.values()),
        "agreement": round(sum(pairs) / len(pairs), 3) if pairs else None,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(ImportReviews, import_decisions, argv)


if __name__ == "__main__":
    sys.exit(main())
