"""Import decisions on listings into the labels table: each once, however often it is run.

    python -m jobs.import_reviews --decisions decided.csv --taxonomy tree.csv --labels labels
    python -m jobs.import_reviews --label-studio https://label-studio.example --taxonomy tree.csv \
        --labels labels

A CSV has the columns `listing_id` and `category_id`, `decision` or both, and optionally `reviewer`,
`reason`, `decided_at` and `expires_at`. A JSON file is an export of Label Studio, of listings that
`jobs.export_reviews` sent; with `--label-studio` a server is asked for it.
"""

import json
import logging
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from jobs.command.locations import Location
from jobs.command.settings import JobSettings, begin, run_job
from schemas.labels import CATEGORY_TASK, LabelSource


class ImportReviews(JobSettings):
    """Import what people or rules decided of listings."""

    decisions: Path | None = Field(
        None,
        description="CSV: listing_id, category_id or decision[, reviewer, …]; or Label Studio's "
        "export in its format JSON",
    )
    label_studio: str | None = Field(
        None, description="address of a Label Studio server to ask for what was decided, instead"
    )
    project: str = Field("Listing categories", description="title of its project")
    taxonomy: Path = Field(description="CSV, Shopify's or Google's taxonomy file")
    labels: Location = Field(description="where decisions are kept, a folder or a table")
    source: LabelSource | None = Field(
        None,
        description="where those of a CSV come from: review, import or rule (default: import)",
    )
    reviewer: str | None = Field(
        None, description="who decided, where a CSV does not say (default: the file's name)"
    )

    @property
    def is_csv(self) -> bool:
        """Whether the decisions are a table, not Label Studio's."""
        return self.decisions is not None and self.decisions.suffix.lower() != ".json"

    @model_validator(mode="after")
    def _name_one_place(self) -> Self:
        if (self.decisions is None) == (self.label_studio is None):
            raise ValueError("give one of --decisions and --label-studio")
        if not self.is_csv and (self.source or self.reviewer):
            raise ValueError("--source and --reviewer are for a CSV; Label Studio knows both")
        return self


if __name__ == "__main__":
    begin(ImportReviews)  # Before the imports below, which take seconds.

import pyarrow as pa
import pyarrow.compute as pc

from jobs.command import job_run
from jobs.command.report import write_report
from jobs.command.session import start_session
from jobs.label_studio.answers import read_answers
from jobs.label_studio.server import LabelStudio
from jobs.stages.decision_table import read_decision_table
from jobs.stages.decisions import add_decisions
from schemas.errors import DataContractError, SettingsError
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
    read = _read(settings, taxonomy)
    accepted = _of_the_tree(read.decisions, taxonomy, read.where)
    spark = start_session("import_reviews")
    with runs.tracked_run("import_reviews", settings.run_parameters()) as run_id:
        added = add_decisions(spark, settings.labels, accepted, run_id)
        job_run.reads(read.where, rows=len(read.decisions))
        job_run.reads(settings.taxonomy)
        job_run.writes(settings.labels, rows=added, columns=LABELS)
        names, counts = pc.value_counts(accepted["decision"]).flatten()
        figures = {
            "decisions": len(read.decisions),
            **read.without,
            "refused": len(read.decisions) - len(accepted),
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


class _Read(NamedTuple):
    """What was read.

    Attributes:
        decisions: The columns of `LABELS` but `run_id`.
        without: How many listings were shown and not decided, by why.
        where: Names the place in messages.
    """

    decisions: pa.Table
    without: dict[str, int]
    where: Path | str


def _read(settings: ImportReviews, taxonomy: Taxonomy) -> _Read:
    if settings.is_csv:
        assert settings.decisions is not None  # noqa: S101 - checked by the settings
        decisions = read_decision_table(
            settings.decisions,
            task=CATEGORY_TASK,
            source=settings.source or LabelSource.IMPORT,
            reviewer=settings.reviewer,
            taxonomy_version=taxonomy.version,
        )
        if not len(decisions):
            raise DataContractError(f"{settings.decisions}: has no decision")
        return _Read(decisions, {}, settings.decisions)
    where: Path | str
    if settings.label_studio:
        server = LabelStudio.connect(settings.label_studio)
        project, where = server.project(settings.project), settings.label_studio
        if project is None:
            raise DataContractError(f"--label-studio {where}: no project {settings.project!r}")
        answers = read_answers(project.tasks(all_of_them=False), server.reviewers(), where)
    else:
        assert settings.decisions is not None  # noqa: S101 - checked by the settings
        where = settings.decisions
        answers = read_answers(_parse(where), {}, str(where))
    without = {"skipped": answers.skipped, "unanswered": answers.unanswered}
    return _Read(answers.decisions, without, where)


def _parse(path: Path) -> object:
    try:
        parsed: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise DataContractError(f"{path}: is not JSON: {error}") from error
    return parsed


def _of_the_tree(decisions: pa.Table, taxonomy: Taxonomy, path: Path | str) -> pa.Table:
    """Leave out decisions for categories that the taxonomy lacks, and say so."""
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
