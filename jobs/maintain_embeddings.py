"""Compact an embedding store, and drop the embeddings that are no longer needed.

    python -m jobs.maintain_embeddings --embeddings embeddings \
        --manifest manifest --keep-since 2026-09-01 --drop-backbone DIGEST

Every backbone's runs become one run of few files with each photo once. Its rows are written to a
scratch folder, counted, and moved in by an atomic rename; only then are the old runs removed. A job
that is killed leaves duplicate rows at worst, and the next one removes them. Meanwhile a backbone's
embeddings take twice their space. Damaged files are quarantined in `_damaged` in the store: find
out why they are damaged, and delete them.
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
from functools import reduce
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import Field

from jobs.command.settings import Day, JobSettings, check_arguments, run_job


class MaintainEmbeddings(JobSettings):
    """Compact an embedding store; drop embeddings of photos and backbones no longer used."""

    embeddings: Path = Field(description="the embedding store")
    manifest: str | None = Field(
        None, description="the manifest's folder; with --keep-since, drop photos not in it"
    )
    keep_since: Day | None = Field(
        None, description="keep photos of partitions from this day on, YYYY-MM-DD"
    )
    drop_backbone: list[str] = Field(
        [], description="digest of a backbone whose embeddings are dropped (repeatable)"
    )


if __name__ == "__main__":
    check_arguments(MaintainEmbeddings)  # Before the imports below, which take seconds.

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from jobs.command import job_run
from jobs.command.progress import show_progress
from jobs.command.report import write_report
from jobs.command.session import local_uri, parquet_reader, start_session
from jobs.stages.aggregates import aggregate
from jobs.stages.embedding_store import EmbeddingStore, hold_store
from jobs.stages.fingerprint import describe_data
from jobs.stages.manifest import read_photos
from jobs.stages.manifest_files import list_partitions
from schemas.errors import DataContractError, SettingsError
from seer_model.tracking import runs

log = logging.getLogger(__name__)

_SCHEMA = "image_key string, backbone_digest string, vector binary, reject_reason string"
_FILE_BYTES = 128 << 20


@dataclass(frozen=True)
class _Counts:
    """A backbone's rows, the distinct photos among them, and how many of those to keep."""

    rows: int
    photos: int
    kept: int


def maintain(settings: MaintainEmbeddings) -> None:
    """Check, remove leftovers, drop backbones, compact and expire the others, report.

    The run's metrics are the report's numbers, those of a backbone as `backbone_DIGEST.NAME`.
    """
    path = settings.embeddings
    if (settings.manifest is None) != (settings.keep_since is None):
        raise SettingsError("--manifest and --keep-since go together: give both or neither")
    runs.connect(settings.tracking_uri)
    started = perf_counter()
    dropping = sorted(set(settings.drop_backbone))
    figures: dict[str, Any] = {"embeddings": str(path), "dropped": dropping}
    with runs.tracked_run("maintain_embeddings", settings.run_parameters()) as run_id:
        with hold_store(path, exclusive=True):
            _check_digests(path, dropping)
            figures["leftovers_removed"] = _remove_leftovers(path)
            spark = start_session("maintain_embeddings")
            with tempfile.TemporaryDirectory(prefix="_scratch-", dir=path) as folder:
                scratch = Path(folder)
                keys = _keys_to_keep(spark, settings, scratch / "keys")
                for digest in dropping:
                    dropped = (path / f"backbone={digest}").rename(scratch / digest)
                    shutil.rmtree(dropped)
                for store in _stores(path):
                    if store.runs():
                        counts = _compact(spark, store, keys, scratch)
                        figures[f"backbone={store.digest}"] = counts
        job_run.adds_to(path)
        figures |= {"seconds": round(perf_counter() - started, 1), "run_id": run_id}
        runs.log_figures(figures)
        write_report(figures, settings.report)


def _stores(path: Path) -> list[EmbeddingStore]:
    digests = sorted(folder.name.partition("=")[2] for folder in path.glob("backbone=*"))
    return [EmbeddingStore(path, digest) for digest in digests]


def _check_digests(path: Path, digests: Iterable[str]) -> None:
    known = [store.digest for store in _stores(path)]
    for digest in digests:
        if digest not in known:
            raise SettingsError(
                f"--drop-backbone {digest}: {path} has {', '.join(known) or 'no backbone'}"
            )


def _remove_leftovers(path: Path) -> int:
    """Remove the folders that killed runs left, and count them; the store must be locked."""
    runs = [run for store in _stores(path) for run in store.runs()]
    leftovers = [*path.glob("_scratch-*"), *(run for run in runs if not _size([run])[0])]
    for folder in leftovers:
        shutil.rmtree(folder)
    return len(leftovers)


def _keys_to_keep(
    spark: SparkSession, settings: MaintainEmbeddings, folder: Path
) -> DataFrame | None:
    """The unique `image_key` of recent photos, written to a folder; None if all are kept."""
    if settings.manifest is None or settings.keep_since is None:
        return None
    recent = _recent_photos(spark, settings.manifest, settings.keep_since)
    data = describe_data(recent, settings.manifest, None)
    runs.log_data(data)
    job_run.reads(settings.manifest, rows=data["rows"], version=data["digest"])
    with show_progress(spark, "reading the manifest's keys"):
        keys = recent.select(F.col("photo_key").alias("image_key")).distinct()
        keys.write.parquet(local_uri(folder))
    return parquet_reader(spark).schema("image_key string").parquet(local_uri(folder))


def _recent_photos(spark: SparkSession, manifest: str, since: date) -> DataFrame:
    """The photos of the partitions since a day.

    Raises:
        DataContractError: The manifest breaks its contract, or a partition's `ds` is not a date.
        SettingsError: There is no such photo, so every embedding would be dropped.
    """
    days = [_day(name, manifest) for name in list_partitions(spark, manifest)]
    recent = [read_photos(spark, manifest, day.isoformat()) for day in days if day >= since]
    if not recent:
        raise SettingsError(f"--keep-since {since}: {manifest} has no photo of that day or later")
    return reduce(DataFrame.union, recent)


def _day(name: str, manifest: str) -> date:
    try:
        day = date.fromisoformat(name.removeprefix("ds="))
    except ValueError:
        day = None
    if day is None or name != f"ds={day}":
        raise DataContractError(f"{manifest}: {name} is not a partition ds=YYYY-MM-DD")
    return day


def _compact(
    spark: SparkSession, store: EmbeddingStore, keys: DataFrame | None, scratch: Path
) -> dict[str, Any]:
    """Compact a backbone's runs, after quarantining damaged files if that fails."""
    for attempt in store.attempts(spark):
        with attempt:
            figures = _merge_runs(spark, store, keys, scratch)
    return {**figures, "files_damaged": store.quarantined}


def _merge_runs(
    spark: SparkSession, store: EmbeddingStore, keys: DataFrame | None, scratch: Path
) -> dict[str, Any]:
    """Replace a backbone's runs by one, unless that would change nothing.

    Args:
        spark: The session.
        store: The backbone's part of the store.
        keys: The photos to keep, or None for all.
        scratch: A folder in the store.

    Returns:
        Figures for the report.

    Raises:
        DataContractError: Rows belong to another backbone, or not all were written; the runs are
            unchanged.
    """
    started = perf_counter()
    runs, digest = store.runs(), store.digest
    files, size = _size(runs)
    rows = parquet_reader(spark).schema(_SCHEMA).parquet(*map(local_uri, runs))
    with show_progress(spark, f"counting {digest[:12]}"):
        counts = _count(rows, digest, keys)
    wanted = max(1, math.ceil(size * counts.kept / max(1, counts.rows) / _FILE_BYTES))
    # Sizes are estimates: fewer than twice the wanted files are not worth a rewrite.
    if len(runs) > 1 or counts.rows > counts.kept or files > 2 * wanted:
        with show_progress(spark, f"compacting {digest[:12]}"):
            _write(rows, digest, keys, wanted, scratch / digest)
        _replace(runs, scratch / digest, spark, counts.kept)
    files_after, size_after = _size(store.runs())
    log.info("backbone %s: %d rows to %d", digest[:12], counts.rows, counts.kept)
    return {
        "rows_before": counts.rows,
        "duplicates": counts.rows - counts.photos,
        "expired": counts.photos - counts.kept,
        "rows_after": counts.kept,
        "files_before": files,
        "files_after": files_after,
        "bytes_before": size,
        "bytes_after": size_after,
        "seconds": round(perf_counter() - started, 1),
    }


def _replace(runs: list[Path], merged: Path, spark: SparkSession, expected: int) -> None:
    """Replace runs by a merged one, if it has the expected number of rows."""
    written = parquet_reader(spark).parquet(local_uri(merged)).count()
    if written != expected:
        raise DataContractError(
            f"{runs[0].parent}: {expected} rows to keep, but {written} written: "
            "its runs were left as they are"
        )
    # Rows first, then their name: a power cut must not leave a run of empty files.
    os.sync()
    merged.rename(runs[0].with_name(f"run={uuid.uuid4().hex}"))
    for run in runs:
        shutil.rmtree(run)


def _size(runs: Iterable[Path]) -> tuple[int, int]:
    sizes = [file.stat().st_size for run in runs for file in run.glob("*.parquet")]
    return len(sizes), sum(sizes)


def _count(rows: DataFrame, digest: str, keys: DataFrame | None) -> _Counts:
    """Count rows, photos, and photos to keep, without reading vectors.

    Raises:
        DataContractError: A row has no key, or belongs to another backbone.
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
    total = aggregate(
        photos,
        F.coalesce(F.sum("rows"), F.lit(0)).alias("rows"),
        F.coalesce(F.sum("foreign"), F.lit(0)).alias("foreign"),
        F.count("*").alias("photos"),
        F.count_if("kept").alias("kept"),
    )
    if total.foreign:
        raise DataContractError(
            f"backbone={digest}: {total.foreign} rows without an image_key or with another "
            "backbone_digest; move their files away first"
        )
    return _Counts(total.rows, total.photos, total.kept)


def _write(rows: DataFrame, digest: str, keys: DataFrame | None, files: int, target: Path) -> None:
    """Write each photo to keep once, with a vector if any of its rows has one."""
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
