"""Find labels of a manifest that are probably wrong, and queue them for review.

    python -m jobs.find_label_errors --manifest manifest --taxonomy tree.csv \
        --embeddings embeddings --ds 2026-11-25 --output reviews

A head that has not seen a listing's label says how probable it is; the least probable come first.
Adds `ds=…/suspects.parquet` to the review queue, which `jobs.export_reviews` shows to people.
"""

import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import Field

from jobs.command.locations import Location, ManifestLocation
from jobs.command.photo_settings import SCRATCH, PhotoSettings
from jobs.command.settings import Day, begin, run_job
from seer_model.backbones.constants import DEFAULT_BACKBONE


class FindLabelErrors(PhotoSettings):
    """Find labelled listings that those like them contradict."""

    manifest: ManifestLocation = Field(description="the manifest's folder or table")
    ds: Day = Field(description="the partition's date, YYYY-MM-DD")
    taxonomy: Path = Field(description="CSV, Shopify's or Google's taxonomy file")
    output: Path = Field(description="folder of the review queues, for ds=…/suspects.parquet")
    backbone: str = Field(DEFAULT_BACKBONE, description="its embeddings tell listings apart")
    labels: Location | None = Field(
        None,
        description="what people decided, a folder or a table; wins over the manifest's labels, "
        "and is not asked about again",
    )
    embeddings: Location | None = Field(
        None, description="embedding store to read and add to, a folder or a table"
    )
    scratch: str | None = SCRATCH
    budget: int = Field(200, ge=1, description="so many listings at most")
    seed: int = Field(0, description="seed of the folds")


if __name__ == "__main__":
    begin(FindLabelErrors)  # Before the imports below, which take seconds.

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.command import job_run
from jobs.command.report import write_report
from jobs.command.session import start_session
from jobs.stages.decisions import decided_now
from jobs.stages.fingerprint import describe_data
from jobs.stages.labels import choose_labelled
from jobs.stages.listing_features import ListingFeatures, read_features
from jobs.stages.manifest import read_photos
from jobs.stages.review_queue import SUSPECTS_FILE, write_queue
from jobs.stages.scratch import scratch_base, scratch_space
from jobs.stages.store.opening import hold_store, open_store
from jobs.stages.unread import check_drivers
from jobs.stages.worker import ship_model
from schemas.categories import Decision
from schemas.errors import DataContractError
from schemas.labels import CATEGORY_TASK, Selection
from schemas.reviews import REVIEWS
from schemas.taxonomy import Taxonomy
from schemas.taxonomy_readers import read_taxonomy
from seer_model.backbones.backbone import save_backbone
from seer_model.processes import scratch_folder
from seer_model.tracking import registry, runs
from seer_model.training.label_errors import OutOfFold, confidently_wrong, out_of_fold

log = logging.getLogger(__name__)


def find(settings: FindLabelErrors) -> None:
    """Read, embed what the store lacks, score out of fold, rank, write, report."""
    started = perf_counter()
    ds = settings.ds.isoformat()
    runs.connect(settings.tracking_uri)
    taxonomy = read_taxonomy(settings.taxonomy)
    backbone = registry.resolve_backbone(settings.backbone)
    spark = start_session("find_label_errors")
    decided = decided_now(spark, settings.labels)
    labelled = choose_labelled(read_photos(spark, settings.manifest, ds), decided)
    base = scratch_base(spark, settings.scratch, settings.output, settings.embeddings)
    with (
        runs.tracked_run("find_label_errors", settings.run_parameters()) as run_id,
        hold_store(settings.embeddings),
        scratch_space(base) as scratch,
        open_store(settings.embeddings, backbone.digest, base) as store,
        tempfile.TemporaryDirectory(prefix="backbone-", dir=scratch_folder()) as folder,
    ):
        data = describe_data(labelled.photos, settings.manifest, ds)
        runs.log_data(data)
        check_drivers(data, settings)
        save_backbone(backbone, Path(folder) / "model" / "backbone")
        model = ship_model(spark, Path(folder) / "model", backbone.digest)
        limits = settings.photo_limits()
        found = read_features(labelled.photos, model, backbone.width, store, scratch, limits)
        names, numbers = _labels(labelled.photos, found, taxonomy)
        scores = out_of_fold(
            found.features.astype(np.float16), numbers, classes=len(names), seed=settings.seed
        )
        table = _queue(found.listing_ids, names, numbers, scores, taxonomy)
        table = _without(table, decided).slice(0, settings.budget)
        of_the_run = {"model_version": backbone.digest[:12], "run_id": run_id}
        target = settings.output / f"ds={ds}" / SUSPECTS_FILE
        write_queue(table, target, of_the_run)
        job_run.reads(settings.manifest, ds=ds, rows=data["rows"], version=data["digest"])
        job_run.reads(settings.labels)
        job_run.adds_to(settings.embeddings, rows=found.embedded)
        job_run.writes(settings.output, ds=ds, rows=len(table), columns=REVIEWS)
        unlike = confidently_wrong(scores, numbers)
        figures = {
            "ds": ds,
            "backbone": f"{backbone.architecture}: {backbone.origin}",
            "listings": len(found.listing_ids),
            **labelled.figures,
            "classes": len(names),
            "labels_alone": int(np.isnan(scores.confidence).sum()),
            "probably_wrong": int(unlike.sum()),
            "probably_wrong_share": round(float(unlike.mean()), 4),
            "selected": len(table),
            "photos_embedded": found.embedded,
            "store_files_damaged": store.quarantined,
            "output": str(target),
            "run_id": run_id,
            "seconds": round(perf_counter() - started, 1),
        }
        runs.log_figures(figures)
        write_report(figures, settings.report)


def _labels(
    photos: DataFrame, found: ListingFeatures, taxonomy: Taxonomy
) -> tuple[list[str], np.ndarray[Any, np.dtype[np.int64]]]:
    """The classes, and the number of each listing's.

    Raises:
        DataContractError: The labels are of one class, or of one that the taxonomy lacks.
    """
    rows = photos.groupBy("listing_id").agg(F.first("category_id").alias("category")).toArrow()
    by_listing = dict(zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True))
    labels = [by_listing[listing] for listing in found.listing_ids]
    unknown = sorted({label for label in labels if label not in taxonomy})
    if unknown:
        raise DataContractError(
            f"{len(unknown)} labels are no categories of the taxonomy {taxonomy.version}, such as "
            f"{unknown[0]!r}"
        )
    names, numbers = np.unique(np.array(labels, object), return_inverse=True)
    if len(names) < 2:
        raise DataContractError("the labelled listings are of fewer than two categories")
    return names.tolist(), numbers.astype(np.int64)


def _queue(
    listing_ids: Sequence[str],
    names: Sequence[str],
    numbers: np.ndarray[Any, np.dtype[np.int64]],
    scores: OutOfFold,
    taxonomy: Taxonomy,
) -> pa.Table:
    """All listings whose label can be judged, the most doubtful first."""
    rows = []
    doubt = np.argsort(scores.confidence, kind="stable")  # NaN comes last.
    for place in doubt[: np.count_nonzero(~np.isnan(scores.confidence))]:
        label, confidence = names[numbers[place]], float(scores.confidence[place])
        candidates = [
            {"category_id": names[number], "score": float(score)}
            for number, score in zip(
                scores.classes[place], scores.probabilities[place], strict=True
            )
        ]
        best = next(c for c in [*candidates, {}] if c.get("category_id") != label)
        rows.append(
            {
                "listing_id": listing_ids[place],
                "task": CATEGORY_TASK,
                "selection": Selection.SUSPECT.value,
                "explanation": f"labelled {taxonomy[label].name} ({confidence:.2f}), and more like "
                f"{taxonomy[best['category_id']].name} ({best['score']:.2f})",
                "decision": Decision.ASSIGNED.value,
                "category_id": label,
                "category_path": taxonomy[label].path,
                "score": confidence,
                "candidates": _with_label(candidates, label, confidence),
                "model_name": "out of fold",
                "taxonomy_version": taxonomy.version,
            }
        )
    return pa.Table.from_pylist(rows, pa.schema([f.with_nullable(True) for f in REVIEWS]))


def _with_label(
    candidates: list[dict[str, Any]], label: str, confidence: float
) -> list[dict[str, Any]]:
    """The candidates, with the label as the last if it is none of them: one key confirms it."""
    if any(each["category_id"] == label for each in candidates):
        return candidates
    return [*candidates[:4], {"category_id": label, "score": confidence}]


def _without(table: pa.Table, decided: DataFrame | None) -> pa.Table:
    """The listings that no person has decided."""
    if decided is None:
        return table
    known = set(decided.select("listing_id").toArrow()["listing_id"].to_pylist())
    return table.filter(pa.array([name not in known for name in table["listing_id"].to_pylist()]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(FindLabelErrors, find, argv)


if __name__ == "__main__":
    sys.exit(main())
