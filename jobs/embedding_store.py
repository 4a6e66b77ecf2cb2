"""The embedding store: what every backbone made of every photo, so that none is embedded twice.

    STORE/backbone=DIGEST/run=ID/*.parquet   what one run added, or `maintain_embeddings` gathered
    STORE/_lock                              held by the runs at work
    STORE/_scratch-…                         what a run needs on the way
    STORE/_damaged/backbone=DIGEST/run=ID/…  files that could not be read whole

Every backbone has its own folder, and every run that adds to it: such runs do not meet (Spark
clears the folder that it has written to). Only upkeep removes rows, and it has the store to itself.
A key may be there more than once, since runs at the same time do not see each other's photos.
"""

import fcntl
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from jobs.session import local_uri
from schemas.errors import PartitionBusy, SettingsError
from schemas.rejects import RejectReason

__all__ = [
    "append_to_store",
    "backbone_folder",
    "despite_damage",
    "hold_store",
    "read_store",
]

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


def backbone_folder(store: Path, digest: str) -> Path:
    """Where the runs of a backbone are, whether or not there are any."""
    return store / f"backbone={digest}"


def read_store(spark: SparkSession, store: Path | None, digest: str) -> DataFrame:
    """What the store knows of a backbone's photos.

    The rows are read when the frame is: hold the store until then.

    Args:
        spark: The session.
        store: The store, which may not exist yet, or None for one that knows nothing.
        digest: The backbone's digest.

    Returns:
        photo_key (each once), vector (little-endian float16) and reject_reason: one of the two is
        null.
    """
    schema = "image_key string, vector binary, reject_reason string"
    if store is None or not backbone_folder(store, digest).is_dir():
        frame = spark.createDataFrame([], schema)
    else:
        uri = local_uri(backbone_folder(store, digest))
        frame = spark.read.schema(schema).parquet(uri).drop("run")
    return frame.withColumnRenamed("image_key", "photo_key").dropDuplicates(["photo_key"])


def append_to_store(fresh: DataFrame, store: Path, digest: str) -> None:
    """Add what reading the same bytes again would give again: vectors and permanent reasons.

    Args:
        fresh: photo_key, storable, vector and reject_reason, as `embed_photos` has them.
        store: The store, which this run holds.
        digest: The backbone's digest.
    """
    permanent = [reason.value for reason in RejectReason if reason.permanent]
    lasting = F.col("vector").isNotNull() | F.col("reject_reason").isin(permanent)
    (
        fresh.where(F.col("storable") & lasting)
        .select(
            F.col("photo_key").alias("image_key"),
            F.lit(digest).alias("backbone_digest"),
            "vector",
            "reject_reason",
        )
        .write.parquet(local_uri(backbone_folder(store, digest) / f"run={uuid.uuid4().hex}"))
    )


def despite_damage(
    spark: SparkSession, store: Path | None, digest: str, work: Callable[[], _Result]
) -> tuple[_Result, int]:
    """Do what reads the store; if it fails over damaged files, set these aside and do it again.

    Args:
        spark: The session.
        store: The store, which this run holds, or None where there is none.
        digest: The backbone's digest.
        work: What to do, as often as need be.

    Returns:
        What `work` gave, and how many files were set aside: truncated ones, or with a bit flipped.
        To the store their photos are new.
    """
    try:
        return work(), 0
    except (Py4JJavaError, PySparkException):
        damaged = [] if store is None else _damaged_files(spark, backbone_folder(store, digest))
        if store is None or not damaged:
            raise
        for file in damaged:
            _set_aside(file, store)
        log.warning("%d damaged files of the store moved to %s", len(damaged), store / "_damaged")
        return work(), len(damaged)


def _damaged_files(spark: SparkSession, folder: Path) -> list[Path]:
    """The files of which Spark, reading on past what is corrupt, gets fewer rows than they have."""
    rows: dict[tuple[str, ...], int] = {}
    damaged = []
    for file in sorted(folder.glob("run=*/*.parquet")):
        try:
            rows[file.parts[-2:]] = pq.read_metadata(file).num_rows
        except (OSError, pa.ArrowException):
            damaged.append(file)
    if rows:
        counts = (
            spark.read.schema("image_key string, vector binary, reject_reason string")
            .option("ignoreCorruptFiles", True)
            .parquet(*[local_uri(folder.joinpath(*parts)) for parts in rows])
            .groupBy(F.col("_metadata.file_path").alias("file"))
            .agg(
                F.count("*").alias("rows"),
                # Every column is read.
                F.max(F.length("image_key")),
                F.max(F.length("vector")),
                F.max(F.length("reject_reason")),
            )
        )
        read = {Path(row["file"]).parts[-2:]: row["rows"] for row in counts.collect()}
        short = [parts for parts, count in rows.items() if read.get(parts, 0) != count]
        damaged += [folder.joinpath(*parts) for parts in short]
    return damaged


def _set_aside(file: Path, store: Path) -> None:
    target = store / "_damaged" / file.relative_to(store)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Another run may have found it, too.
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)
    if file.exists():
        file.replace(target)


@contextmanager
def hold_store(store: Path | None, *, exclusive: bool) -> Iterator[None]:
    """Hold the store until the block ends, together with others or alone.

    The lock is the kernel's: it ends with the process that holds it, however that ends.

    Args:
        store: The store, or None where there is nothing to hold.
        exclusive: Alone, for upkeep, which may then take every `_scratch-…` folder for a dead
            run's. Otherwise with other runs that read or add; the folder is made if need be.

    Raises:
        PartitionBusy: Upkeep holds it, or, for upkeep, any other run.
        SettingsError: It is not there, or cannot be written or locked.
    """
    if store is None:
        yield
        return
    try:
        if not exclusive:
            store.mkdir(parents=True, exist_ok=True)
        file = (store / "_lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"--embeddings {store}: {error.strerror}") from error
    with file:
        _lock(file, store, exclusive=exclusive)
        yield


def _lock(file: TextIO, store: Path, *, exclusive: bool) -> None:
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        upkeep = file.read().strip() or "another process"
        holder = "used by another run" if exclusive else f"in upkeep by {upkeep}"
        raise PartitionBusy(f"{store} is {holder}; wait for it to end and run again") from None
    except OSError as error:
        raise SettingsError(f"--embeddings {store}: {error.strerror}") from error
    if exclusive:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
