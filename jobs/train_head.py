"""Train a categorizer's head on a manifest's labelled listings and register the bundle.

    python -m jobs.train_head --manifest manifest --taxonomy tree.csv

With `--attribute NAME` it learns an attribute's values instead, such as materials, from the
manifest's column `attributes`.

The head learns from listings in the splits `train` and `chosen` or in none; those in `val` decide
when to stop and calibrate. If no listing is in `val`, cross-fitting on the others does both, and
those in `chosen` are not calibrated on; with `--finetune`, which has seen them all, and
`--balance`, which knows when to stop by `val` alone, a seventh of `train` is held out instead, by a
hash of their ids. `jobs.stages.labels` says what becomes of listings with two labels or splits.
"""

import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from jobs.command.locations import Location, ManifestLocation
from jobs.command.photo_settings import SCRATCH, PhotoSettings
from jobs.command.settings import Day, begin, run_job
from seer_model.backbones.constants import DEFAULT_BACKBONE
from seer_model.training.threads import share_cores


class TrainHead(PhotoSettings):
    """Train a head on labelled listings and register it with its backbone as a bundle."""

    manifest: ManifestLocation = Field(description="the manifest's folder or table")
    ds: Day | None = Field(None, description="only this partition (default: all)")
    backbone: str = Field(
        DEFAULT_BACKBONE,
        description="models:/…, runs:/…, a folder, zoo:NAME, timm:NAME.TAG, timm:NAME@FILE, "
        "lite:0, vissl:FILE, or timm:NAME for random weights",
    )
    taxonomy: Path | None = Field(
        None, description="CSV, Shopify's or Google's taxonomy file; not with --attribute"
    )
    attribute: str | None = Field(
        None,
        description="learn this attribute of the manifest, such as material, instead of categories",
    )
    attribute_categories: list[str] = Field(
        [],
        description="with --attribute: categories that it applies to, and all below (repeatable; "
        "default: all)",
    )
    labels: Location | None = Field(
        None,
        description="what people decided, a folder or a table; wins over the manifest's labels",
    )
    reviewed_manifest: ManifestLocation | None = Field(
        None,
        description="with --labels: manifest of listings that people decided and --manifest "
        "lacks, such as the daily one",
    )
    registered_name: str = Field(
        "listing-categorizer",
        description="name in the registry (with --attribute: listing-ATTRIBUTE)",
    )
    output: Path | None = Field(
        None, description="write the bundle to this folder instead of registering it"
    )
    embeddings: Location | None = Field(
        None, description="embedding store to read and add to, a folder or a table"
    )
    scratch: str | None = SCRATCH
    target_precision: float = Field(
        0.9, gt=0, lt=1, description="share of assigned listings that should be right"
    )
    unseen_share: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share of the listings to come whose kind of goods has no label yet; "
        "--target-precision is to hold among them too",
    )
    balance: str | None = Field(
        None, description="slice of the manifest whose groups should fare alike, such as region"
    )
    fold_by: str | None = Field(
        None,
        description="without a split val: slice whose listings stay together in cross-fitting, "
        "such as sender_id (default: those that look alike)",
    )
    finetune: bool = Field(
        False, description="first fine-tune the whole backbone on the photos of split train"
    )
    finetune_epochs: int = Field(20, ge=1, description="passes over the photos with --finetune")
    finetune_size: int | None = Field(
        None,
        ge=32,
        description="side of a crop in pixels; smaller is faster (default: full size)",
    )
    finetune_degraded: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the crops turned, blurred, darkened or compressed as sellers' photos "
        "are",
    )
    seed: int = Field(0, description="seed of the training")

    @model_validator(mode="after")
    def _categories_or_an_attribute(self) -> Self:
        if (self.taxonomy is None) == (self.attribute is None):
            raise ValueError("give either --taxonomy or --attribute")
        if self.attribute is None and self.attribute_categories:
            raise ValueError("--attribute-categories goes with --attribute")
        if self.attribute is not None and self.labels is not None:
            raise ValueError("--labels: people decide categories, not an --attribute")
        if self.attribute is not None and "registered_name" not in self.model_fields_set:
            self.registered_name = f"listing-{self.attribute}"
        return self


if __name__ == "__main__":
    begin(TrainHead)  # Before the imports below, which take seconds.
share_cores()  # Before torch is imported.

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.command import job_run
from jobs.command.folders import Folder
from jobs.command.progress import watch
from jobs.command.report import write_report
from jobs.command.session import start_session
from jobs.pages.evaluation_plots import training_plots
from jobs.stages.decisions import CHOSEN, TRAIN, decided_now, with_reviewed
from jobs.stages.embedding import embed_photos
from jobs.stages.finetuned import finetune_photos
from jobs.stages.fingerprint import describe_data
from jobs.stages.kept_model import save_and_register
from jobs.stages.labels import choose_labelled, label_by_attribute, taxonomy_of_values
from jobs.stages.manifest import read_days, read_photos
from jobs.stages.scratch import scratch_base, scratch_space
from jobs.stages.spool import Spool
from jobs.stages.store.base import EmbeddingStore
from jobs.stages.store.opening import hold_store, open_store
from jobs.stages.training_photos import check_slice, read_slices, train_and_val
from jobs.stages.unread import check_drivers
from jobs.stages.worker import ship_model
from schemas.errors import DataContractError
from schemas.taxonomy_readers import read_taxonomy
from seer_model.backbones.backbone import save_backbone
from seer_model.categorizer.bundle import Bundle, save_bundle
from seer_model.processes import scratch_folder
from seer_model.tracking import registration, registry, runs
from seer_model.training.finetuning import FinetuneRecipe
from seer_model.training.fit import FittedBundle, fit_bundle
from seer_model.training.labelled import LabelledPhotos

log = logging.getLogger(__name__)


def train(settings: TrainHead) -> None:
    """Read, fine-tune if asked to, embed, fit, save, report.

    The run's metrics are the losses of every epoch, of the fine-tuning (`finetune_loss`) and of the
    head, and the figures on `val` (`val_…`). Its plots show reliability, and precision by coverage.
    """
    runs.connect(settings.tracking_uri)
    taxonomy = read_taxonomy(settings.taxonomy) if settings.taxonomy else None
    backbone = registry.resolve_backbone(settings.backbone)
    spark = start_session("train_head")
    ds = settings.ds.isoformat() if settings.ds else None
    found = label_by_attribute(read_photos(spark, settings.manifest, ds), settings.attribute)
    # A fine-tuned backbone knows the photos of train by heart, and cross-fitting would not notice;
    # nor does it balance groups.
    hold_out = settings.finetune or settings.balance is not None
    decided = decided_now(spark, settings.labels)
    if settings.reviewed_manifest is not None and decided is not None:
        found = with_reviewed(found, read_days(spark, settings.reviewed_manifest), decided)
    labelled = choose_labelled(found, decided, hold_out=hold_out)
    photos = labelled.in_splits(TRAIN, CHOSEN, "val")
    taxonomy = taxonomy or taxonomy_of_values(photos)
    base = scratch_base(spark, settings.scratch, settings.embeddings)
    with (
        runs.tracked_run("train_head", settings.run_parameters()) as run_id,
        hold_store(settings.embeddings),
        scratch_space(base) as scratch,
        tempfile.TemporaryDirectory(prefix="head-", dir=scratch_folder()) as folder,
    ):
        local = Path(folder)
        data = describe_data(photos, settings.manifest, ds)
        runs.log_data(data)
        job_run.reads(settings.manifest, ds=ds, rows=data["rows"], version=data["digest"])
        job_run.reads(settings.labels)
        job_run.reads(settings.reviewed_manifest)
        job_run.reads(settings.taxonomy)
        job_run.reads_model(settings.backbone, backbone.digest)
        check_drivers(data, settings)
        slices = read_slices(photos, scratch / "slices")
        check_slice(slices, "--balance", settings.balance)
        check_slice(slices, "--fold-by", settings.fold_by)
        if settings.finetune:
            backbone = finetune_photos(
                backbone, photos, taxonomy, _recipe(settings), scratch, settings.photo_limits()
            )
        save_backbone(backbone, local / "model" / "backbone")
        model = ship_model(spark, local / "model", backbone.digest)
        with open_store(settings.embeddings, backbone.digest, base) as store:
            embedded = _embed(photos, slices, model, backbone.width, store, scratch, settings)
        job_run.adds_to(settings.embeddings, rows=embedded.photos_embedded)
        train_photos, val_photos = embedded.train, embedded.val
        if settings.finetune and not val_photos.labels:
            raise DataContractError(
                "no photo of val can be read, and a fine-tuned backbone has seen all others: put "
                "some labelled listings into the split val"
            )
        started = perf_counter()
        fitted = fit_bundle(
            backbone,
            taxonomy,
            train_photos,
            val_photos,
            target_precision=settings.target_precision,
            unseen_share=settings.unseen_share,
            seed=settings.seed,
            balance=settings.balance,
            fold_by=settings.fold_by,
            origin={
                "manifest": data["manifest"],
                "ds": ds,
                "photos": len(train_photos.labels) + len(val_photos.labels),
                "embedded_on": embedded.devices,
                "listings": len(set(train_photos.listing_ids) | set(val_photos.listing_ids)),
                "fingerprint": data["digest"],
                "run_id": run_id,
                "seed": settings.seed,
                "balance": settings.balance,
                "fold_by": settings.fold_by,
                "attribute": settings.attribute,
                "attribute_categories": settings.attribute_categories,
            },
            watch=watch,
        )
        if settings.fold_by is not None and val_photos.labels:
            log.warning("--fold-by %s: not used, the split val decides", settings.fold_by)
        training, quality = fitted.training, fitted.quality.figures()
        seconds_training = perf_counter() - started
        runs.log_curves({"train_loss": training.train_loss, "val_loss": training.val_loss})
        for name, plot in training_plots(fitted.outcomes, settings.target_precision).items():
            runs.log_plot(plot, f"{name}.png")
        figures = {
            **_save(fitted.bundle, local, settings),
            "quantized": backbone.quantized is not None,
            "train_photos": len(train_photos.labels),
            "val_photos": len(val_photos.labels),
            **labelled.figures,
            "photos_embedded": embedded.photos_embedded,
            "store_files_damaged": embedded.store_files_damaged,
            "seconds_embedding": round(embedded.seconds, 1),
            "seconds_training": round(seconds_training, 1),
            "head": fitted.bundle.training["head"],
            "calibrated_on": fitted.bundle.training["calibrated_on"],
            "epochs": len(training.train_loss),
            "balanced": fitted.balanced,
            "temperature": fitted.bundle.calibration.temperature,
            "thresholds": list(fitted.bundle.calibration.thresholds),
            "val": {name: round(value, 3) for name, value in quality.items()},
            **_what_it_cannot_assign(fitted),
            "run_id": run_id,
        }
        on_val = {f"val_{name}": value for name, value in quality.items()}
        runs.log_figures({**figures, "val": None, **on_val})
        write_report(figures, settings.report)


class _Embedded(NamedTuple):
    train: LabelledPhotos
    val: LabelledPhotos
    photos_embedded: int
    devices: dict[str, int]
    store_files_damaged: int
    seconds: float


def _embed(
    photos: DataFrame,
    slices: pa.Table,
    model: str,
    width: int,
    store: EmbeddingStore,
    scratch: Folder,
    settings: TrainHead,
) -> _Embedded:
    """Embed the photos; returns those that could be read, to train on and to calibrate by."""
    started = perf_counter()
    limits = settings.photo_limits()
    for attempt in store.attempts(photos.sparkSession):
        with attempt:
            embedded = embed_photos(photos, model, store, scratch / "embedded", limits)
            usable = embedded.photos.where(F.col("vector").isNotNull())
            columns = ("listing_id", "category_id", "split", "vector")
            key = F.xxhash64("vector").alias("vector_key")
            spool = Spool.write(usable.select(*columns, key), scratch / "usable")
    train, val = train_and_val(spool, slices, width)
    seconds = perf_counter() - started
    return _Embedded(train, val, embedded.embedded, embedded.devices, store.quarantined, seconds)


def _save(bundle: Bundle, local: Path, settings: TrainHead) -> dict[str, Any]:
    """Write the bundle to `--output`, or register it; returns figures for the report."""
    folder = settings.output or local / "bundle"
    bundle = save_bundle(bundle, folder)
    name = None if settings.output else settings.registered_name
    return {
        **save_and_register(folder, bundle.digest, name, registration.register_bundle),
        "bundle_digest": bundle.digest,
        "backbone": f"{bundle.backbone.architecture}: {bundle.backbone.origin}",
        "licence": bundle.backbone.licence,
        "taxonomy_categories": len(bundle.tree.taxonomy),
        "classes": len(bundle.tree.classes),
    }


def _what_it_cannot_assign(fitted: FittedBundle) -> dict[str, Any]:
    """Say what the model promises nothing for; return for the report what it can never assign."""
    tree, shortfall = fitted.bundle.tree, fitted.shortfall
    learned = set(tree.categories)
    rest = [c.category_id for c in tree.taxonomy if c.category_id not in learned]
    if rest:
        log.info(
            "%d of %d categories have no labelled listing in train and are never assigned: %s%s",
            *(len(rest), len(tree.taxonomy), ", ".join(rest[:3]), " …" if len(rest) > 3 else ""),
        )
    if shortfall is not None:
        log.warning("the model can assign nothing: %s", shortfall.reason)
    elif (calibrated_on := fitted.bundle.training["calibrated_on"]) != "val":
        log.warning(
            "no split val: the precision rests on %s; to promise it for new senders, put labelled "
            "listings of other senders into the split val",
            calibrated_on,
        )
    return {
        "categories_without_label": rest,
        "assigns_nothing": shortfall and shortfall.reason,
        "labels_missing": shortfall and shortfall.labels_missing,
    }


def _recipe(settings: TrainHead) -> FinetuneRecipe:
    return FinetuneRecipe(
        epochs=settings.finetune_epochs,
        crop_size=settings.finetune_size,
        degraded=settings.finetune_degraded,
        seed=settings.seed,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(TrainHead, train, argv)


if __name__ == "__main__":
    sys.exit(main())
