"""What all embedding stores share: how embeddings are looked up, added, and kept as they come.

A key may occur several times:
runs in flight at the same time do not see each other's photos.

A run adds to the store when all its photos are embedded. What its tasks have done by then is in a
folder of pending embeddings, a file a task. If the run is killed, the next one finds them there and
adds them, so that no more is lost than the tasks at work.
"""

import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import from_arrow_schema, from_arrow_type

from jobs.command.folders import Folder
from jobs.command.session import parquet_reader
from jobs.stages.scratch import has_been_left, is_in_use, leave, mark_as_mine
from schemas.embeddings import EMBEDDINGS, Signal
from schemas.rejects import RejectReason

__all__ = ["NO_SIGNALS", "PENDING", "EmbeddingStore", "NoStore", "SignalMakers"]

log = logging.getLogger(__name__)

PENDING = "_pending"
"""Name of the folder of embeddings that runs have not yet added."""

_PERMANENT = [reason.value for reason in RejectReason if reason.permanent]
_PENDING_COLUMNS = from_arrow_schema(
    pa.schema(
        [
            ("photo_key", pa.string()),
            ("keyed_by_content", pa.bool_()),
            ("storable", pa.bool_()),
            *(EMBEDDINGS.field(name) for name in ("vector", "reject_reason", *Signal)),
        ]
    )
)

SignalMakers = Mapping[Signal, str]
"""The signals that a run needs of every photo, and who has to have made them."""

NO_SIGNALS: SignalMakers = {}


class EmbeddingStore(ABC):
    """One backbone's part of an embedding store.

    Attributes:
        digest: The backbone's digest.
        pending: Folder of the embeddings that runs have not yet added; None to keep none.
        quarantined: How many damaged files `attempts` has quarantined.
        recovered: How many embeddings of killed runs were added.
    """

    def __init__(self, digest: str, pending: Folder | None) -> None:
        self.digest = digest
        self.pending = pending
        self.quarantined = 0
        self.recovered = 0
        self._unfinished: list[Folder] = []
        self._to_discard: list[Folder] = []

    @abstractmethod
    def rows(self, spark: SparkSession) -> DataFrame | None:
        """image_key, vector, reject_reason and signals as they are stored; None if there are none.

        In a table that was made before there were signals, their columns are missing.
        """

    @abstractmethod
    def write(self, rows: DataFrame) -> None:
        """Add rows with the columns of `schemas.embeddings`."""

    def attempts(self, spark: SparkSession) -> Iterator[AbstractContextManager[None]]:  # noqa: ARG002
        """Blocks that read the store, of which the last one's errors count.

        for attempt in store.attempts(spark):
            with attempt:
                ...
        """
        yield nullcontext()

    def read(self, spark: SparkSession, signals: SignalMakers = NO_SIGNALS) -> DataFrame | None:
        """The stored embeddings, read when the frame is: see `attempts`.

        Args:
            spark: The session.
            signals: Those that are needed.

        Returns:
            photo_key (unique), embedded (true or false), and accordingly vector (little-endian
            float16) or reject_reason; the other is null. The signals that are needed, and
            `complete`: whether an embedded photo has them all. Or None if there are none.
        """
        rows = self.rows(spark)
        if rows is None:
            return None
        reason = F.col("reject_reason")
        embedded = F.bool_or(reason.isNull())
        made = {signal: _made_by(rows, signal, maker) for signal, maker in signals.items()}
        complete = F.lit(True)
        for column in made.values():
            complete &= F.bool_or(column.isNotNull())
        # Whoever needs the keys alone has `embedded` and `complete` without reading a vector.
        return (
            rows.where(reason.isNull() | reason.isin(_PERMANENT))
            .groupBy(F.col("image_key").alias("photo_key"))
            .agg(
                embedded.alias("embedded"),
                (~embedded | complete).alias("complete"),
                F.max("vector").alias("vector"),
                F.when(~embedded, F.min(reason)).alias("reject_reason"),
                *(F.max(column).alias(signal) for signal, column in made.items()),
            )
        )

    def append(self, photos: DataFrame) -> None:
        """Add what will be true of the photos tomorrow.

        That is every vector, and a permanent reason if the key is that of the rejected bytes: a
        server's error page is no property of the photo whose address it answered.

        Args:
            photos: photo_key, keyed_by_content, storable, vector, reject_reason and signals.
        """
        lasting = F.col("vector").isNotNull() | (
            F.col("keyed_by_content") & F.col("reject_reason").isin(_PERMANENT)
        )
        self.write(
            photos.where(F.col("storable") & lasting).select(
                F.col("photo_key").alias("image_key"),
                F.lit(self.digest).alias("backbone_digest"),
                "vector",
                "reject_reason",
                *(_signal(photos, signal).alias(signal) for signal in Signal),
                F.current_timestamp().alias("added_at"),
            )
        )

    def new_pending(self, scratch: Folder) -> Folder:
        """A folder for the embeddings that this run makes: where the next run finds them.

        Args:
            scratch: Holds the folder where embeddings are not kept.
        """
        folder = (self.pending or scratch) / f"run={uuid.uuid4().hex}"
        mark_as_mine(folder)
        self._unfinished.append(folder)
        return folder

    def discard_at_end(self, folder: Folder) -> None:
        """Remove a folder of pending embeddings at the end, since they were added."""
        self._unfinished.remove(folder)
        self._to_discard.append(folder)

    def close(self) -> None:
        """Remove the pending embeddings that were added, and leave others to the next run."""
        for folder in self._to_discard:
            folder.remove()
        for folder in self._unfinished:
            leave(folder)

    def recover(self, spark: SparkSession) -> None:
        """Add the pending embeddings of runs that were killed."""
        folders = self.pending.children() if self.pending is not None else []
        for folder in folders:
            if is_in_use(folder):
                continue
            pending = (
                parquet_reader(spark)
                # Its run may be at work on another machine, and remove it at any time.
                .option("ignoreMissingFiles", True)
                # A power cut leaves files without an end.
                .option("ignoreCorruptFiles", True)
                .schema(_PENDING_COLUMNS)
                .parquet(folder.uri)
            )
            if (rows := self.rows(spark)) is not None:
                known = rows.select(
                    F.col("image_key").alias("known"),
                    *(
                        _signal(rows, signal).isNotNull().alias(f"has_{signal}")
                        for signal in Signal
                    ),
                )
                same = F.col("photo_key") == F.col("known")
                for signal in Signal:
                    same &= F.col(signal).isNull() | F.col(f"has_{signal}")
                pending = pending.join(known, same, "left_anti")
            if count := pending.count():
                log.info("recovering %d embeddings of a run that was killed", count)
                self.append(pending)
                self.recovered += count
            if has_been_left(folder):
                folder.remove()


def _signal(rows: DataFrame, signal: Signal) -> Column:
    found = F.col(signal) if signal in rows.columns else F.lit(None)
    return found.cast(from_arrow_type(EMBEDDINGS.field(signal).type))


def _made_by(rows: DataFrame, signal: Signal, maker: str) -> Column:
    """A signal where it was made by whom it should be, else null."""
    if signal not in rows.columns:
        return F.lit(None)
    return F.when(F.col(f"{signal}.made_by") == maker, F.col(signal))


class NoStore(EmbeddingStore):
    """Where embeddings are not kept."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest, None)

    def rows(self, spark: SparkSession) -> DataFrame | None:  # noqa: ARG002
        """None."""
        return None

    def write(self, rows: DataFrame) -> None:
        """Nothing."""
