"""Train a screener's concepts, such as weapons, on a moderation team's labels, and register it.

    python -m jobs.train_screener --manifest manifest --labels labels.csv --embeddings embeddings

Labels are the manifest's column `concepts`, and lines of a CSV: listing_id, image_index (optional),
concept, value. A concept learns from the photos of which somebody said whether they show it, so
every concept needs listings without it, too. Photos that the embedding store has are not read: a
new concept takes minutes.
"""

import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import Field

from jobs.command.locations import Location, ManifestLocation
from jobs.command.photo_settings import SCRATCH, PhotoSettings
from jobs.command.settings import Day, begin, run_job
from seer_model.backbones.constants import DEFAULT_BACKBONE
from seer_model.training.threads import share_cores


class TrainScreener(PhotoSettings):
    """Learn concepts from labelled photos and register them with their backbone as a screener."""

    manifest: ManifestLocation = Field(description="the manifest's folder or table")
    ds: Day | None = Field(None, description="only this partition (default: all)")
    labels: Path | None = Field(
        None,
        description="CSV of listing_id, image_index (optional), concept, value; wins over the "
        "manifest's column concepts",
    )
    backbone: str = Field(
        DEFAULT_BACKBONE,
        description="embeds the photos; the categorizer's (models:/listing-categorizer@champion) "
        "lets both use one embedding",
    )
    registered_name: str = Field("listing-screener", description="name in the registry")
    output: Path | None = Field(
        None, description="write the model to this folder instead of registering it"
    )
    embeddings: Location | None = Field(
        None, description="embedding store to read and add to, a folder or a table"
    )
    scratch: str | None = SCRATCH
    target_recall: float = Field(
        0.95,
        gt=0,
        lt=1,
        description="share of the listings with a concept that should be reviewed or blocked",
    )
    target_precision: float = Field(
        0.95,
        gt=0,
        lt=1,
        description="share of the listings blocked for a concept that should have it",
    )


if __name__ == "__main__":
    begin(TrainScreener)  # Before the imports below, which take seconds.
share_cores()  # Before torch is imported.

from pyspark.sql import functions as F  # noqa: N812
from rich.console import Console
from rich.table import Table

from jobs.command import job_run
from jobs.command.folders import Folder
from jobs.command.progress import watch
from jobs.command.report import write_report
from jobs.command.session import start_session
from jobs.stages.concept_labels import ConceptLabels, join_labels, label_photos
from jobs.stages.decisions import CHOSEN, TRAIN
from jobs.stages.embedding import embed_photos
from jobs.stages.fingerprint import describe_data
from jobs.stages.kept_model import save_and_register
from jobs.stages.manifest import read_photos
from jobs.stages.scratch import scratch_base, scratch_space
from jobs.stages.spool import Spool
from jobs.stages.store.base import EmbeddingStore
from jobs.stages.store.opening import hold_store, open_store
from jobs.stages.unread import check_drivers
from jobs.stages.worker import ship_model
from schemas.errors import DataContractError
from seer_model.backbones.backbone import Backbone, save_backbone
from seer_model.processes import scratch_folder
from seer_model.screener.concepts import Concepts, ScreenerModel, save_screener_model
from seer_model.tracking import registration, registry, runs
from seer_model.training.concepts import FittedConcepts, LabelledConcepts, fit_concepts

log = logging.getLogger(__name__)


def train(settings: TrainScreener) -> None:
    """Read labels, embed, fit, save, report."""
    started = perf_counter()
    runs.connect(settings.tracking_uri)
    backbone = registry.resolve_backbone(settings.backbone)
    spark = start_session("train_screener")
    ds = settings.ds.isoformat() if settings.ds else None
    found = read_photos(spark, settings.manifest, ds)
    labelled = label_photos(found, settings.labels)
    photos = labelled.in_splits(TRAIN, CHOSEN, "val")
    base = scratch_base(spark, settings.scratch, settings.embeddings)
    with (
        runs.tracked_run("train_screener", settings.run_parameters()) as run_id,
        hold_store(settings.embeddings),
        scratch_space(base) as scratch,
        tempfile.TemporaryDirectory(prefix="screener-", dir=scratch_folder()) as folder,
    ):
        local = Path(folder)
        data = describe_data(photos, settings.manifest, ds)
        runs.log_data(data)
        job_run.reads(settings.manifest, ds=ds, rows=data["rows"], version=data["digest"])
        job_run.reads(settings.labels)
        job_run.reads_model(settings.backbone, backbone.digest)
        check_drivers(data, settings)
        save_backbone(backbone, local / "model" / "backbone")
        model = ship_model(spark, local / "model", backbone.digest)
        with open_store(settings.embeddings, backbone.digest, base) as store:
            embedded, given = _embed(labelled, model, backbone, store, scratch, settings)
        job_run.adds_to(settings.embeddings, rows=embedded)
        trained = perf_counter()
        fitted = fit_concepts(
            given,
            target_recall=settings.target_recall,
            target_precision=settings.target_precision,
            watch=watch,
        )
        concepts = _learned(fitted)
        _say(fitted, settings)
        training = {
            "manifest": data["manifest"],
            "ds": ds,
            "fingerprint": data["digest"],
            "photos": len(given.listing_ids),
            "listings": len(set(given.listing_ids)),
            "target_recall": settings.target_recall,
            "target_precision": settings.target_precision,
            "run_id": run_id,
            "concepts": fitted.figures,
        }
        figures = {
            **_save(ScreenerModel(backbone, concepts, training), local, settings),
            "concepts": fitted.figures,
            "concepts_left_out": fitted.left_out,
            "photos": len(given.listing_ids),
            **labelled.figures,
            "photos_embedded": embedded,
            "store_files_damaged": store.quarantined,
            "seconds_training": round(perf_counter() - trained, 1),
            "seconds": round(perf_counter() - started, 1),
            "run_id": run_id,
        }
        runs.log_figures(
            {f"{c}_{name}": value for c, of in fitted.figures.items() for name, value in of.items()}
        )
        _print_table(fitted)
        write_report(figures, settings.report)


def _embed(
    labelled: ConceptLabels,
    model: str,
    backbone: Backbone,
    store: EmbeddingStore,
    scratch: Folder,
    settings: TrainScreener,
) -> tuple[int, LabelledConcepts]:
    """Embed the photos; returns how many the store lacked, and those that could be read."""
    photos = labelled.in_splits(TRAIN, CHOSEN, "val")
    for attempt in store.attempts(photos.sparkSession):
        with attempt:
            limits = settings.photo_limits()
            embedded = embed_photos(photos, model, store, scratch / "embedded", limits)
            usable = embedded.photos.where(F.col("vector").isNotNull())
            columns = ("listing_id", "image_index", "split", "vector")
            key = F.xxhash64("vector").alias("vector_key")
            spool = Spool.write(usable.select(*columns, key), scratch / "usable")
    labels = Spool.write(labelled.labels, scratch / "said")
    return embedded.embedded, join_labels(spool, labels, backbone.width)


def _learned(fitted: FittedConcepts) -> Concepts:
    for name, reason in fitted.left_out.items():
        log.warning("%s cannot be learned: %s", name, reason)
    if fitted.concepts is None:
        raise DataContractError(f"no concept can be learned: {fitted.left_out}")
    return fitted.concepts


def _say(fitted: FittedConcepts, settings: TrainScreener) -> None:
    """Say which promise cannot be given."""
    for name, figures in fitted.figures.items():
        if missing := figures["recall_labels_missing"]:
            log.warning(
                "%s: %d more labelled listings with it would show a recall of %g; until then it is "
                "reviewed from the least likely one on",
                *(name, missing, settings.target_recall),
            )
        if figures["block_at"] is None:
            log.warning(
                "%s: nothing is blocked, since no threshold is shown to have a precision of %g",
                *(name, settings.target_precision),
            )


def _save(model: ScreenerModel, local: Path, settings: TrainScreener) -> dict[str, Any]:
    """Write the model to `--output`, or register it; returns figures for the report."""
    folder = settings.output or local / "screener"
    model = save_screener_model(model, folder)
    name = None if settings.output else settings.registered_name
    saved = save_and_register(folder, model.digest, name, registration.register_screener)
    return {
        **saved,
        "screener_digest": model.digest,
        "backbone": f"{model.backbone.architecture}: {model.backbone.origin}",
        "licence": model.backbone.licence,
    }


def _print_table(fitted: FittedConcepts) -> None:
    columns: Mapping[str, str] = {
        "with_it": "with it",
        "listings": "of",
        "average_precision": "average precision",
        "review_at": "review from",
        "recall": "recall",
        "reviewed_share": "reviewed",
        "block_at": "block from",
        "blocked_recall": "recall of blocking",
    }
    table = Table("concept", *columns.values())
    for name, figures in fitted.figures.items():
        table.add_row(name, *(_cell(figures[column]) for column in columns))
    Console().print(table)


def _cell(value: float | None) -> str:
    if value is None:
        return "never"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(TrainScreener, train, argv)


if __name__ == "__main__":
    sys.exit(main())
