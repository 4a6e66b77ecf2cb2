"""Train a categorizer's head on a manifest's labelled listings and register the bundle.

    python -m jobs.train_head --manifest manifest --taxonomy tree.csv

Listings of the split `train`, and of no split, are learned from; those of `val` stop and calibrate
the training. Where none is in `val`, a seventh of the others is held out by the hash of their ids.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.embedding import EmbeddedPhotos, embed_photos, scratch_folder
from jobs.embedding_store import despite_damage
from jobs.manifest import describe_data, read_photos
from jobs.photo_settings import PhotoSettings
from jobs.report import write_report
from jobs.session import start_session
from jobs.settings import run_job
from jobs.worker import ship_model
from schemas.errors import DataContractError
from schemas.taxonomy import Taxonomy
from schemas.taxonomy_readers import read_taxonomy
from seer_model import registry, zoo
from seer_model.backbone import Backbone, save_backbone
from seer_model.bundle import save_bundle
from seer_model.finetuning import FinetuneRecipe, finetune
from seer_model.hierarchy import ClassTree
from seer_model.photo_source import PhotoSource
from seer_model.training import LabelledPhotos, fit_bundle

_HELD_OUT = 7


class TrainHead(PhotoSettings):
    """Train a head on labelled listings and register it with its backbone as a bundle."""

    manifest: str = Field(description="the manifest's folder")
    ds: date | None = Field(None, description="only this partition (default: all)")
    backbone: str = Field(
        zoo.DEFAULT,
        description="models:/…, runs:/…, a folder, zoo:NAME, vissl:FILE, timm:NAME.TAG, or "
        "timm:NAME for random weights",
    )
    taxonomy: Path = Field(description="CSV, Shopify's or Google's taxonomy file")
    registered_name: str = Field("listing-categorizer", description="name in the registry")
    output: Path | None = Field(
        None, description="write the bundle to this folder instead of registering it"
    )
    embeddings: Path | None = Field(None, description="embedding store to use and fill")
    target_precision: float = Field(
        0.9, gt=0, lt=1, description="share of assigned listings that is to be right"
    )
    finetune: bool = Field(
        False, description="first train the whole backbone on the labelled photos of split train"
    )
    finetune_epochs: int = Field(20, ge=1, description="passes over them for --finetune")
    finetune_size: int | None = Field(
        None, ge=32, description="pixels of a crop's side; smaller is faster (default: as embedded)"
    )
    seed: int = Field(0, description="seed of the training")


def train(settings: TrainHead) -> None:
    """Embed, train, calibrate, save or register.

    The run has the losses of every epoch and the figures on `val` (`val_…`) as metrics.
    """
    registry.connect(settings.tracking_uri)
    taxonomy = read_taxonomy(settings.taxonomy)
    backbone = registry.resolve_backbone(settings.backbone)
    spark = start_session("train_head")
    ds = settings.ds.isoformat() if settings.ds else None
    photos = read_photos(spark, settings.manifest, ds).where(
        F.col("category_id").isNotNull()
        & F.coalesce("split", F.lit("train")).isin("train", "val")
        & F.col("listing_id").isNotNull()
    )
    parameters = settings.model_dump(exclude={"tracking_uri", "report"})
    with (
        registry.tracked_run("train_head", parameters) as run_id,
        scratch_folder(settings.embeddings) as work,
    ):
        data = describe_data(photos, settings.manifest, ds)
        registry.log_data(data)
        limits = settings.photo_limits()
        if settings.finetune:
            backbone = _finetuned(backbone, photos, taxonomy, settings)
        save_backbone(backbone, work / "model" / "backbone")
        model = ship_model(spark, work / "model", backbone.digest)
        started = perf_counter()
        store = settings.embeddings

        def collect() -> tuple[EmbeddedPhotos, pa.Table]:
            embedded = embed_photos(
                photos, model, backbone.digest, store, work / "embedded", limits
            )
            return embedded, _collect(embedded.photos)

        (embedded, table), damaged = despite_damage(spark, store, backbone.digest, collect)
        seconds_embedding = perf_counter() - started
        train_photos, val_photos = _split(table, backbone.width)
        origin: dict[str, Any] = {
            "manifest": data["manifest"],
            "ds": ds,
            "photos": table.num_rows,
            "embedded_on": embedded.devices,
            "listings": len(set(train_photos.listing_ids) | set(val_photos.listing_ids)),
            "fingerprint": data["digest"],
            "run_id": run_id,
            "seed": settings.seed,
        }
        started = perf_counter()
        fitted = fit_bundle(
            backbone,
            taxonomy,
            train_photos,
            val_photos,
            target_precision=settings.target_precision,
            seed=settings.seed,
            origin=origin,
        )
        seconds_training = perf_counter() - started
        quality = fitted.quality.figures()
        losses = {"train_loss": fitted.training.train_loss, "val_loss": fitted.training.val_loss}
        registry.log_curves(losses)
        target = settings.output or work / "bundle"
        bundle = save_bundle(fitted.bundle, target)
        version = None
        if settings.output is None:
            name = settings.registered_name
            with registry.registering(name, lambda: _keep(target, f"{name}-{bundle.digest[:12]}")):
                version = registry.register_bundle(target, name)
        figures = {
            "model": f"models:/{settings.registered_name}/{version}" if version else str(target),
            "version": version,
            "bundle_digest": bundle.digest,
            "backbone": f"{backbone.architecture}: {backbone.origin}",
            "licence": backbone.licence,
            "taxonomy_categories": len(taxonomy),
            "classes": len(bundle.tree.classes),
            "train_photos": len(train_photos.labels),
            "val_photos": len(val_photos.labels),
            "photos_embedded": embedded.embedded,
            "store_files_damaged": damaged,
            "seconds_embedding": round(seconds_embedding, 1),
            "seconds_training": round(seconds_training, 1),
            "epochs": len(fitted.training.train_loss),
            "temperature": bundle.calibration.temperature,
            "thresholds": list(bundle.calibration.thresholds),
            "val": {name: round(value, 3) for name, value in quality.items()},
            "run_id": run_id,
        }
        on_val = {f"val_{name}": value for name, value in quality.items()}
        registry.log_figures({**figures, "val": None, **on_val})
        write_report(figures, settings.report)


def _keep(bundle: Path, name: str) -> Path:
    """Move a bundle out of the scratch folder: into this folder, or where it cannot be, another."""
    try:
        return Path(shutil.move(bundle, Path.cwd() / name))
    except OSError:
        return Path(shutil.move(bundle, Path(tempfile.mkdtemp(prefix="kept-")) / name))


def _collect(photos: DataFrame) -> pa.Table:
    usable = photos.where(F.col("vector").isNotNull())
    table = usable.select("listing_id", "category_id", "split", "vector").toArrow()
    # Spark gives rows in any order; the training must not depend on it.
    keys = [("listing_id", "ascending"), ("vector", "ascending")]
    return table.sort_by(keys)


def _split(table: pa.Table, width: int) -> tuple[LabelledPhotos, LabelledPhotos]:
    val = _is_val(table)
    train_photos = _labelled(table.filter(pc.invert(val)), width)
    val_photos = _labelled(table.filter(val), width)
    if not train_photos.labels or not val_photos.labels:
        raise DataContractError(
            "too few labelled photos that can be read: "
            f"{len(train_photos.labels)} to train on, {len(val_photos.labels)} to calibrate on"
        )
    return train_photos, val_photos


def _is_val(table: pa.Table) -> pa.Array:
    """Which rows stop and calibrate the training."""
    val = pc.fill_null(pc.equal(table.column("split"), "val"), fill_value=False)
    if pc.any(val).as_py():
        return val
    return pa.array([_held_out(x) for x in table.column("listing_id").to_pylist()], pa.bool_())


def _finetuned(
    backbone: Backbone, photos: DataFrame, taxonomy: Taxonomy, settings: TrainHead
) -> Backbone:
    """Fine-tune in this process, on its GPU if there is one."""
    columns = ("listing_id", "category_id", "split", "image_uri", "image_bytes")
    table = photos.where(F.col("problem").isNull()).select(*columns, "image_index").toArrow()
    table = table.sort_by([("listing_id", "ascending"), ("image_index", "ascending")])
    table = table.filter(pc.invert(_is_val(table)))
    if not table.num_rows:
        raise DataContractError("no labelled photo to fine-tune on")
    ClassTree(taxonomy, table.column("category_id").to_pylist())  # Before the long work.
    categories = table.column("category_id").dictionary_encode().combine_chunks()
    return finetune(
        backbone,
        [
            PhotoSource(uri, data)
            for uri, data in zip(
                table.column("image_uri").to_pylist(),
                table.column("image_bytes").to_pylist(),
                strict=True,
            )
        ],
        categories.indices.to_numpy().astype(np.int64),
        FinetuneRecipe(
            epochs=settings.finetune_epochs,
            crop_size=settings.finetune_size,
            seed=settings.seed,
        ),
        device="cuda" if torch.cuda.is_available() else "cpu",
        decode_threads=os.cpu_count() or 1,
        limits=settings.photo_limits(),
    )


def _held_out(listing_id: str) -> bool:
    return hashlib.sha256(listing_id.encode()).digest()[0] % _HELD_OUT == 0


def _labelled(table: pa.Table, width: int) -> LabelledPhotos:
    data = b"".join(table.column("vector").to_pylist())
    return LabelledPhotos(
        table.column("listing_id").to_pylist(),
        table.column("category_id").to_pylist(),
        np.frombuffer(data, "<f2").reshape(-1, width),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(TrainHead, train, argv)


if __name__ == "__main__":
    sys.exit(main())
