"""The embedding store: every backbone's embeddings, so that no photo is embedded twice.

    STORE/backbone=DIGEST/run=ID/*.parquet   added by one run, or compacted by `maintain_embeddings`
    STORE/_lock                              shared by the runs at work
    STORE/_scratch-…                         scratch folders of runs
    STORE/_damaged/backbone=DIGEST/run=ID/…  quarantined files

Every run writes a folder of its own, because Spark clears the folder it has written to. Only
`maintain_embeddings` removes rows, and it locks the store for itself alone. A key may occur several
times: runs in flight at the same time do not see each other's photos.
"""

import logging
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from jobs.command.locks import take_lock
from jobs.command.session import local_uri, parquet_reader
from schemas.errors import SettingsError
from schemas.rejects import RejectReason

__all__ = ["EmbeddingStore", "hold_store"]

log = logging.getLogger(__name__)

_PERMANENT = [reason.value for reason in RejectReason if reason.permanent]
_SCHEMA = "image_key string, vector binary, reject_reason string"


class EmbeddingStore:
    """One backbone's part of an embedding store. Hold the store (`hold_store`) while using it.

    Attributes:
        path: The store, or None to keep nothing: `read` then finds no embedding, `append` adds
            none.
        digest: The backbone's digest.
        quarantined: How many damaged files `attempts` has quarantined.
    """

    def __init__(self, path: Path | None, digest: str) -> None:
        self.path = path
        self.digest = digest
        self.quarantined = 0

    def runs(self) -> list[Path]:
        """The folders that hold the rows, one a run."""
        if self.path is None:
            return []
        return sorted((self.path / f"backbone={self.digest}").glob("run=*"))

    def read(self, spark: SparkSession) -> DataFrame | None:
        """The stored embeddings, read when the frame is: see `attempts`.

        Returns:
            photo_key (unique), embedded (true or false), and accordingly vector (little-endian
            float16) or reject_reason; the other is null. Or None if there are none.
        """
        if not (runs := self.runs()):
            return None
        rows = parquet_reader(spark).schema(_SCHEMA).parquet(local_uri(runs[0].parent))
        reason = F.col("reject_reason")
        embedded = F.bool_or(reason.isNull())
        # Whoever needs the keys alone has `embedded` without reading a vector.
        return (
            rows.where(reason.isNull() | reason.isin(_PERMANENT))
            .groupBy(F.col("image_key").alias("photo_key"))
            .agg(
                embedded.alias("embedded"),
                F.max("vector").alias("vector"),
                F.when(~embedded, F.min(reason)).alias("reject_reason"),
            )
        )

    def append(self, photos: DataFrame) -> None:
        """Add what will be true of the photos tomorrow.

        That is every vector, and a permanent reason if the key is that of the rejected bytes: a
        server's error page is no property of the photo whose address it answered.

        Args:
            photos: photo_key, keyed_by_content, storable, vector and reject_reason.
        """
        if self.path is None:
            return
        lasting = F.col("vector").isNotNull() | (
            F.col("keyed_by_content") & F.col("reject_reason").isin(_PERMANENT)
        )
        run = self.path / f"backbone={self.digest}" / f"run={uuid.uuid4().hex}"
        (
            photos.where(F.col("storable") & lasting)
            .select(
                F.col("photo_key").alias("image_key"),
                F.lit(self.digest).alias("backbone_digest"),
                "vector",
                "reject_reason",
            )
            .write.parquet(local_uri(run))
        )

    def attempts(self, spark: SparkSession) -> Iterator[AbstractContextManager[None]]:
        """Retry a block that reads the store, once its damaged files are quarantined.

            for attempt in store.attempts(spark):
                with attempt:
                    ...

        An undamaged store costs nothing: its files are checked only after the block has failed. If
        none is damaged, the block's error is raised. The second attempt finds the photos of
        quarantined files missing from the store, and embeds them again.
        """
        retry = False

        @contextmanager
        def first_attempt() -> Iterator[None]:
            nonlocal retry
            try:
                yield
            except (Py4JJavaError, PySparkException):
                retry = self._quarantine_damaged(spark)
                if not retry:
                    raise

        yield first_attempt()
        if retry:
            yield nullcontext()

    def _quarantine_damaged(self, spark: SparkSession) -> bool:
        """Move truncated files, and those with a bit flipped, to `_damaged`; whether any was."""
        if self.path is None or not (damaged := _damaged_files(spark, self.runs())):
            return False
        for file in damaged:
            target = self.path / "_damaged" / file.relative_to(self.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            # Another run may be moving the same file.
            file.with_name(f".{file.name}.crc").unlink(missing_ok=True)
            if file.exists():
                file.replace(target)
        self.quarantined += len(damaged)
        log.warning(
            "quarantined %d damaged store file(s) in %s", len(damaged), self.path / "_damaged"
        )
        return True


def _damaged_files(spark: SparkSession, runs: list[Path]) -> list[Path]:
    """The files with unreadable footers, or of which Spark can read only some of the rows."""
    rows: dict[Path, int] = {}
    damaged = []
    for file in sorted(file for run in runs for file in run.glob("*.parquet")):
        try:
            rows[file] = pq.read_metadata(file).num_rows
        except (OSError, pa.ArrowException):
            damaged.append(file)
    if rows:
        counts = (
            parquet_reader(spark)
            .schema(_SCHEMA)
            .option("ignoreCorruptFiles", True)
            .parquet(*map(local_uri, rows))
            .groupBy(F.col("_metadata.file_path").alias("file"))
            .agg(
                F.count("*").alias("rows"),
                # Makes Spark read every column.
                F.max(F.length("image_key")),
                F.max(F.length("vector")),
                F.max(F.length("reject_reason")),
            )
        )
        # Spark may spell the store's path in another way (links, escapes).
        read = {Path(row["file"]).parts[-2:]: row["rows"] for row in counts.collect()}
        damaged += [file for file, count in rows.items() if read.get(file.parts[-2:], 0) != count]
    return damaged


@contextmanager
def hold_store(path: Path | None, *, exclusive: bool) -> Iterator[None]:
    """Lock a store until the block ends, shared or exclusively.

    Args:
        path: The store, or None where there is nothing to lock.
        exclusive: For upkeep, which may then assume that every `_scratch-…` folder belongs to a
            dead run. Otherwise for runs that read and add; the folder is created if missing.

    Raises:
        PartitionBusy: Upkeep holds the store or, for upkeep, any other run does.
        SettingsError: The store does not exist, or cannot be written or locked.
    """
    if path is None:
        yield
        return
    try:
        if not exclusive:
            path.mkdir(parents=True, exist_ok=True)
        lock = take_lock(path / "_lock", str(path), "upkeep" if exclusive else None)
    except OSError as error:
        raise SettingsError(f"--embeddings {path}: {error.strerror}") from error
    with lock:
        yield
