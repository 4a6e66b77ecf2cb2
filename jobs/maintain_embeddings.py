"""Compact an embedding store and drop what is no longer needed.

    python -m jobs.maintain_embeddings --embeddings embeddings \
        --manifest manifest --keep-since 2026-09-01 --drop-backbone DIGEST

The runs of every backbone become one run of few files, each photo once. Its rows are written beside
the store, counted, moved in at one stroke, and only then are the runs that they came from removed:
a run that dies leaves rows twice at worst, and the next one puts that right. A backbone's store
takes twice its room meanwhile. Damaged files are moved to `_damaged` in the store: look at why they
are, and remove them.
"""

import logging
import math
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial, reduce
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from jobs.embedding_store import backbone_folder, despite_damage, hold_store
from jobs.manifest import describe_data, read_photos
from jobs.progress import show_progress
from jobs.report import write_report
from jobs.session import local_uri, start_session
from jobs.settings import JobSettings, run_job
from schemas.errors import DataContractError, SettingsError
from seer_model import tracking

log = logging.getLogger(__name__)

_SCHEMA = "image_key string, backbone_digest string, vector binary, reject_reason string"
_FILE_BYTES = 128 << 20


class MaintainEmbeddings(JobSettings):
    """Compact an embedding store; drop embeddings of photos and backbones no longer used."""

    embeddings: Path = Field(description="the embedding store")
    manifest: str | None = Field(
        None, description="the manifest's folder, with --keep-since: drop photos not in it"
    )
    keep_since: date | None = Field(
        None, description="YYYY-MM-DD: photos of partitions from this day on are kept"
    )
    drop_backbone: list[str] = Field(
        [], description="digest of a backbone whose embeddings to drop (repeatable)"
    )


@dataclass(frozen=True)
class _Counts:
    """Rows of a backbone; `keys` are the photos that they are of, `kept` those to keep."""

    rows: int
    keys: int
    kept: int


def maintain(settings: MaintainEmbeddings) -> None:
    """Check, drop backbones, compact and expire the others, report.

    The run has the numbers of the report as metrics, a backbone's as `backbone_DIGEST.NAME`.
    """
    store = settings.embeddings
    if (settings.manifest is None) != (settings.keep_since is None):
        raise SettingsError("--manifest and --keep-since go together: give both or neither")
    tracking.connect(settings.tracking_uri)
    started = perf_counter()
    dropping = sorted(set(settings.drop_backbone))
    figures: dict[str, Any] = {"embeddings": str(store), "dropped": dropping}
    parameters = settings.model_dump(exclude={"tracking_uri", "report"})
    with tracking.tracked_run("maintain_embeddings", parameters) as run_id:
        with hold_store(store, exclusive=True):
            _check_digests(store, dropping)
            figures["leftovers_removed"] = _clear_leftovers(store)
            spark = start_session("maintain_embeddings")
            with tempfile.TemporaryDirectory(prefix="_scratch-", dir=store) as folder:
                scratch = Path(folder)
                keys = None
                if settings.manifest is not None and settings.keep_since is not None:
                    recent = _recent_photos(spark, settings.manifest, settings.keep_since)
                    tracking.log_data(describe_data(recent, settings.manifest, None))
                    keys = _write_keys(recent, scratch / "keys")
                for digest in dropping:
                    dropped = scratch / digest
                    backbone_folder(store, digest).rename(dropped)
                    shutil.rmtree(dropped)
                for digest in _digests(store):
                    if _runs(store, digest):
                        compact = partial(_compact, spark, store, digest, keys, scratch)
                        counts, damaged = despite_damage(spark, store, digest, compact)
                        figures[f"backbone={digest}"] = {**counts, "files_damaged": damaged}
        figures |= {"seconds": round(perf_counter() - started, 1), "run_id": run_id}
        tracking.log_figures(figures)
        write_report(figures, settings.report)


def _digests(store: Path) -> list[str]:
    return sorted(path.name.partition("=")[2] for path in store.glob("backbone=*"))


def _runs(store: Path, digest: str) -> list[Path]:
    return sorted(backbone_folder(store, digest).glob("run=*"))


def _check_digests(store: Path, digests: Iterable[str]) -> None:
    there = _digests(store)
    for digest in digests:
        if digest not in there:
            raise SettingsError(
                f"--drop-backbone {digest}: {store} has {', '.join(there) or 'no backbone'}"
            )


def _clear_leftovers(store: Path) -> int:
    """Remove what runs that died left: this one has the store to itself.

    Returns:
        How many folders that were.
    """
    runs = [run for digest in _digests(store) for run in _runs(store, digest)]
    leftovers = [*store.glob("_scratch-*"), *(run for run in runs if not _size([run])[0])]
    for path in leftovers:
        shutil.rmtree(path)
    return len(leftovers)


def _recent_photos(spark: SparkSession, manifest: str, since: date) -> DataFrame:
    """The photos since a day.

    Every partition is read by itself: in one that has no `image_key`, keys are derived.

    Raises:
        DataContractError: The manifest breaks its contract, or a partition's `ds` is not a date.
        SettingsError: There is no such photo, and so every embedding would be dropped.
    """
    files = read_photos(spark, manifest).inputFiles()
    names = {part for file in files for part in file.split("/")[-2:-1]}
    days = sorted(_day(name, manifest) for name in names)
    recent = [read_photos(spark, manifest, day.isoformat()) for day in days if day >= since]
    if all(photos.isEmpty() for photos in recent):
        raise SettingsError(f"--keep-since {since}: {manifest} has no photo of that day or later")
    return reduce(DataFrame.union, recent)


def _write_keys(photos: DataFrame, folder: Path) -> DataFrame:
    """The photos' keys, each once, as `image_key`."""
    spark = photos.sparkSession
    with show_progress(spark, "reading the manifest's keys"):
        keys = photos.select(F.col("photo_key").alias("image_key")).distinct()
        keys.write.parquet(local_uri(folder))
    return spark.read.schema("image_key string").parquet(local_uri(folder))


def _day(name: str, manifest: str) -> date:
    try:
        return date.fromisoformat(name.removeprefix("ds="))
    except ValueError:
        raise DataContractError(f"{manifest}: {name} is no partition ds=YYYY-MM-DD") from None


def _compact(
    spark: SparkSession, store: Path, digest: str, keys: DataFrame | None, scratch: Path
) -> dict[str, Any]:
    """Make one run of a backbone's runs, or leave the one there is.

    Args:
        spark: The session.
        store: The store.
        digest: The backbone's digest.
        keys: The photos to keep, or None for all.
        scratch: A folder in the store.

    Returns:
        Figures for the report.

    Raises:
        DataContractError: The rows are not of this backbone, or not all were written; the runs are
            as they were.
    """
    started = perf_counter()
    runs = _runs(store, digest)
    files, size = _size(runs)
    rows = spark.read.schema(_SCHEMA).parquet(*map(local_uri, runs))
    with show_progress(spark, f"counting {digest[:12]}"):
        counts = _count(rows, digest, keys)
    wanted = max(1, math.ceil(size * counts.kept / max(1, counts.rows) / _FILE_BYTES))
    # Twice as many will do, since files seldom come out as large as estimated.
    if len(runs) > 1 or counts.rows > counts.kept or files > 2 * wanted:
        merged = scratch / digest
        with show_progress(spark, f"compacting {digest[:12]}"):
            _write(rows, digest, keys, wanted, merged)
        written = spark.read.parquet(local_uri(merged)).count()
        if written != counts.kept:
            raise DataContractError(
                f"{runs[0].parent}: {counts.kept} rows to keep, but {written} written: "
                "its runs were left as they are"
            )
        # Rows first, then their name: a power cut must not leave a run of empty files.
        os.sync()
        merged = merged.rename(runs[0].with_name(f"run={uuid.uuid4().hex}"))
        for run in runs:
            shutil.rmtree(run)
        runs = [merged]
    files_after, size_after = _size(runs)
    figures = {
        "rows_before": counts.rows,
        "duplicates": counts.rows - counts.keys,
        "expired": counts.keys - counts.kept,
        "rows_after": counts.kept,
        "files_before": files,
        "files_after": files_after,
        "bytes_before": size,
        "bytes_after": size_after,
        "seconds": round(perf_counter() - started, 1),
    }
    log.info("backbone %s: %d rows to %d", digest[:12], counts.rows, counts.kept)
    return figures


def _size(runs: Iterable[Path]) -> tuple[int, int]:
    sizes = [file.stat().st_size for run in runs for file in run.glob("*.parquet")]
    return len(sizes), sum(sizes)


def _count(rows: DataFrame, digest: str, keys: DataFrame | None) -> _Counts:
    """Count what there is and what is to be kept; no vector is read.

    Raises:
        DataContractError: A row has no key, or is of another backbone.
    """
    foreign = F.col("image_key").isNull() | ~F.col("backbone_digest").eqNullSafe(digest)
    photos = rows.groupBy("image_key").agg(
        F.count("*").alias("rows"), F.count_if(foreign).alias("foreign")
    )
    kept = F.lit(True)
    photos = (
        photos.withColumn("kept", kept)
        if keys is None
        else photos.join(keys.withColumn("kept", kept), "image_key", "left")
    )
    total = photos.agg(
        F.coalesce(F.sum("rows"), F.lit(0)).alias("rows"),
        F.coalesce(F.sum("foreign"), F.lit(0)).alias("foreign"),
        F.count("*").alias("keys"),
        F.count_if("kept").alias("kept"),
    ).first()
    assert total is not None  # noqa: S101 - aggregates without groups are one row
    if total.foreign:
        raise DataContractError(
            f"backbone={digest}: {total.foreign} rows without an image_key or with another "
            "backbone_digest; move their files away first"
        )
    return _Counts(total.rows, total.keys, total.kept)


def _write(rows: DataFrame, digest: str, keys: DataFrame | None, files: int, target: Path) -> None:
    """Write each photo to keep once: with its vector, if any of its rows has one."""
    if keys is not None:
        rows = rows.join(keys, "image_key", "left_semi")
    (
        rows.repartition(files, "image_key")
        .groupBy("image_key")
        .agg(F.max(F.struct("vector", "reject_reason")).alias("row"))
        .select("image_key", F.lit(digest).alias("backbone_digest"), "row.*")
        .write.mode("overwrite")
        .parquet(local_uri(target))
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(MaintainEmbeddings, maintain, argv)


if __name__ == "__main__":
    sys.exit(main())
