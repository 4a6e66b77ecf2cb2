"""Upkeep of an embedding store in a folder: every backbone's runs become one run of few files.

Its rows are written to a scratch folder, counted, and moved in by an atomic rename; only then are
the old runs removed. If upkeep is killed, it leaves duplicate rows at worst, and the next one
removes them. Meanwhile a backbone's embeddings take twice their space.
"""

import logging
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.command.progress import show_progress
from jobs.command.session import local_uri, parquet_reader
from jobs.stages.aggregates import aggregate
from jobs.stages.store.base import PENDING
from jobs.stages.store.folder import FolderStore, hold_folder
from schemas.embeddings import EMBEDDINGS, Signal
from schemas.errors import DataContractError, SettingsError

__all__ = ["maintain_folder"]

log = logging.getLogger(__name__)

_SCHEMA = from_arrow_schema(EMBEDDINGS)
_FILE_BYTES = 128 << 20


@dataclass(frozen=True)
class _Counts:
    """A backbone's rows, the distinct photos among them, and how many of those to keep."""

    rows: int
    photos: int
    kept: int


def maintain_folder(
    path: Path,
    start: Callable[[], SparkSession],
    read_keys: Callable[[SparkSession], DataFrame | None],
    drop_backbones: list[str],
) -> dict[str, Any]:
    """Lock the store, remove leftovers, drop backbones, compact the others.

    Args:
        path: The store.
        start: Starts Spark, once the store is locked.
        read_keys: Returns the unique `image_key` of photos to keep, or None for all.
        drop_backbones: Digests of backbones to drop.

    Returns:
        Figures for the report.

    Raises:
        PartitionBusy: A run holds the store.
        SettingsError: There is no such store or backbone.
        DataContractError: Rows belong to another backbone, or not all were written.
    """
    figures: dict[str, Any] = {}
    with hold_folder(path, exclusive=True):
        _check_digests(path, drop_backbones)
        figures["leftovers_removed"] = _remove_leftovers(path)
        spark = start()
        figures["embeddings_recovered"] = _recover(spark, path)
        with tempfile.TemporaryDirectory(prefix="_scratch-", dir=path) as folder:
            scratch = Path(folder)
            if (keys := read_keys(spark)) is not None:
                keys = _write_keys(keys, scratch / "keys")
            for digest in drop_backbones:
                dropped = (path / f"backbone={digest}").rename(scratch / digest)
                shutil.rmtree(dropped)
            for store in _stores(path):
                if store.runs():
                    figures[f"backbone={store.digest}"] = _compact(spark, store, keys, scratch)
    return figures


def _stores(path: Path) -> list[FolderStore]:
    digests = sorted(folder.name.partition("=")[2] for folder in path.glob("backbone=*"))
    return [FolderStore(path, digest) for digest in digests]


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


def _recover(spark: SparkSession, path: Path) -> int:
    """Add the pending embeddings of killed runs, and count them; the store must be locked."""
    recovered = 0
    for pending in sorted((path / PENDING).glob("backbone=*")):
        store = FolderStore(path, pending.name.partition("=")[2])
        store.recover(spark)
        recovered += store.recovered
    shutil.rmtree(path / PENDING, ignore_errors=True)
    return recovered


def _write_keys(keys: DataFrame, folder: Path) -> DataFrame:
    """Write keys down, since every backbone's rows are compared with them."""
    with show_progress(keys.sparkSession, "reading the manifest's keys"):
        keys.write.parquet(local_uri(folder))
    return parquet_reader(keys.sparkSession).schema("image_key string").parquet(local_uri(folder))


def _compact(
    spark: SparkSession, store: FolderStore, keys: DataFrame | None, scratch: Path
) -> dict[str, Any]:
    """Compact a backbone's runs, after quarantining damaged files if that fails."""
    for attempt in store.attempts(spark):
        with attempt:
            figures = _merge_runs(spark, store, keys, scratch)
    return {**figures, "files_damaged": store.quarantined}


def _merge_runs(
    spark: SparkSession, store: FolderStore, keys: DataFrame | None, scratch: Path
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
    """Write each photo to keep once, with a vector if any of its rows has one.

    Of its signals, the last ones that were added are kept, whoever made them.
    """
    if keys is not None:
        rows = rows.join(keys, "image_key", "left_semi")
    (
        rows.repartition(files, "image_key")
        .groupBy("image_key")
        .agg(
            F.max(F.struct("vector", "reject_reason")).alias("row"),
            *(_last(signal).alias(signal) for signal in Signal),
            F.max("added_at").alias("added_at"),
        )
        .select("image_key", F.lit(digest).alias("backbone_digest"), "row.*", *Signal, "added_at")
        .write.mode("overwrite")
        .parquet(local_uri(target))
    )


def _last(signal: Signal) -> Column:
    # Without a signal there is no order, and such rows are not looked at.
    return F.max_by(signal, F.when(F.col(signal).isNotNull(), F.col("added_at")))
