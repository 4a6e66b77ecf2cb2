"""An embedding store in a folder.

    STORE/backbone=DIGEST/run=ID/*.parquet   added by one run, or compacted by `maintain_embeddings`
    STORE/_lock                              shared by the runs at work
    STORE/_pending/backbone=DIGEST/run=ID/…  embeddings that a run has not yet added
    STORE/_scratch-…                         scratch folders of runs
    STORE/_damaged/backbone=DIGEST/run=ID/…  quarantined files

Every run writes a folder of its own, because Spark clears the folder it has written to. Only
`maintain_embeddings` removes rows, and it locks the store for itself alone.
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
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.command.folders import LocalFolder
from jobs.command.locks import take_lock
from jobs.command.session import local_uri, parquet_reader
from jobs.stages.store.base import PENDING, EmbeddingStore
from schemas.embeddings import EMBEDDINGS, Signal
from schemas.errors import SettingsError

__all__ = ["FolderStore", "hold_folder"]

log = logging.getLogger(__name__)

_SCHEMA = from_arrow_schema(
    pa.schema(
        [EMBEDDINGS.field(n) for n in ("image_key", "vector", "reject_reason", *Signal, "added_at")]
    )
)


class FolderStore(EmbeddingStore):
    """One backbone's part of a store in a folder. Hold the store (`hold_folder`) while using it.

    Attributes:
        path: The store.
    """

    def __init__(self, path: Path, digest: str) -> None:
        super().__init__(digest, LocalFolder(path / PENDING / f"backbone={digest}"))
        self.path = path

    def runs(self) -> list[Path]:
        """The folders that hold the rows, one a run."""
        return sorted((self.path / f"backbone={self.digest}").glob("run=*"))

    def rows(self, spark: SparkSession) -> DataFrame | None:
        """The rows of all runs."""
        if not (runs := self.runs()):
            return None
        return parquet_reader(spark).schema(_SCHEMA).parquet(local_uri(runs[0].parent))

    def write(self, rows: DataFrame) -> None:
        """Write them to a folder of their own."""
        run = self.path / f"backbone={self.digest}" / f"run={uuid.uuid4().hex}"
        rows.write.parquet(local_uri(run))

    def attempts(self, spark: SparkSession) -> Iterator[AbstractContextManager[None]]:
        """Retry a block that reads the store, once its damaged files are quarantined.

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
        if not (damaged := _damaged_files(spark, self.runs())):
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
                *(F.max(F.length(F.to_json(signal))) for signal in Signal),
                F.max("added_at"),
            )
        )
        # Spark may spell the store's path in another way (links, escapes).
        read = {Path(row["file"]).parts[-2:]: row["rows"] for row in counts.collect()}
        damaged += [file for file, count in rows.items() if read.get(file.parts[-2:], 0) != count]
    return damaged


@contextmanager
def hold_folder(path: Path, *, exclusive: bool) -> Iterator[None]:
    """Lock a store until the block ends, shared or exclusively.

    Args:
        path: The store.
        exclusive: For upkeep, which may then assume that every scratch folder and every pending
            embedding is a dead run's. Otherwise for runs that read and add; the folder is created
            if missing.

    Raises:
        PartitionBusy: Upkeep holds the store or, for upkeep, any other run does.
        SettingsError: The store does not exist, or cannot be written or locked.
    """
    try:
        if not exclusive:
            path.mkdir(parents=True, exist_ok=True)
        lock = take_lock(path / "_lock", str(path), "upkeep" if exclusive else None)
    except OSError as error:
        raise SettingsError(f"--embeddings {path}: {error.strerror}") from error
    with lock:
        yield
