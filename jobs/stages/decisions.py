"""What people decided of listings: the labels table, read, added to, and joined to photos."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

from jobs.command.locations import Table
from jobs.command.locks import take_lock
from jobs.command.progress import show_progress
from jobs.command.session import local_uri, parquet_reader
from jobs.stages.aggregates import aggregate
from jobs.tables.opening import TableContract, open_table, read_table
from schemas.columns import column_problems
from schemas.errors import DataContractError, SettingsError
from schemas.labels import CATEGORY_TASK, LABELS, LabelDecision, Selection, check_labels

__all__ = [
    "CHOSEN",
    "LABELS_TABLE",
    "TRAIN",
    "WITHDRAWN",
    "add_decisions",
    "decided_now",
    "join_decisions",
    "newest_decisions",
    "read_decisions",
    "with_reviewed",
]

log = logging.getLogger(__name__)

TRAIN = "train"
"""The split of listings to learn from."""
CHOSEN = "chosen"
"""The split of listings to learn from that were chosen for it: nothing is calibrated on them."""

LABELS_TABLE = TableContract(LABELS, ("task",), "Decisions on listings, append-only")

# The same decision, whichever run added it.
_DECISION = [name for name in LABELS.names if name != "run_id"]
WITHDRAWN = [
    decision.value
    for decision in (
        LabelDecision.NOT_IN_TAXONOMY,
        LabelDecision.BAD_PHOTO,
        LabelDecision.VIOLATION,
    )
]
"""Decisions by which a listing is of no category."""


def read_decisions(spark: SparkSession, labels: Path | Table) -> DataFrame:
    """Read all decisions, each once.

    Args:
        spark: The session.
        labels: `--labels`: a folder of Parquet files, or a table. None may be there yet.

    Returns:
        The columns of `LABELS`.

    Raises:
        DataContractError: A column is missing or of the wrong type.
        SettingsError: Spark cannot open the table.
    """
    frame = read_table(spark, labels) if isinstance(labels, Table) else _read(spark, labels)
    if frame is None:
        log.warning("--labels %s: there is no decision yet", labels)
        return spark.createDataFrame([], from_arrow_schema(LABELS))
    required = [field.name for field in LABELS if not field.nullable]
    if problems := column_problems(to_arrow_schema(frame.schema), LABELS, required):
        raise DataContractError(f"--labels {labels}: {'; '.join(problems)}")
    columns = [
        (F.col(field.name) if field.name in frame.columns else F.lit(None))
        .cast(from_arrow_schema(pa.schema([field]))[0].dataType)
        .alias(field.name)
        for field in LABELS
    ]
    return frame.select(*columns).dropDuplicates(_DECISION)


def _read(spark: SparkSession, folder: Path) -> DataFrame | None:
    if not any(folder.glob("*.parquet")):
        return None
    return parquet_reader(spark).option("mergeSchema", True).parquet(local_uri(folder))


def newest_decisions(decisions: DataFrame, task: str, at: datetime) -> DataFrame:
    """The decision that counts for each listing: the newest that has not expired.

    Args:
        decisions: From `read_decisions`.
        task: What was asked.
        at: The time, with a zone.

    Returns:
        listing_id, once each, decided_at, source, reviewer, decision, category_id, selection.
    """
    counts = F.col("expires_at").isNull() | (F.col("expires_at") > F.lit(at))
    # Of two at the same time the greater source, then name; so that it is always the same one.
    columns = ("decided_at", "source", "reviewer", "decision", "category_id", "selection")
    newest = F.max(F.struct(*columns))
    return (
        decisions.where((F.col("task") == task) & counts)
        .groupBy("listing_id")
        .agg(newest.alias("newest"))
        .select("listing_id", "newest.*")
    )


def decided_now(spark: SparkSession, labels: Path | Table | None) -> DataFrame | None:
    """What counts now of the categories that people decided; None without `--labels`."""
    if labels is None:
        return None
    return newest_decisions(read_decisions(spark, labels), CATEGORY_TASK, datetime.now(UTC))


def add_decisions(
    spark: SparkSession, labels: Path | Table, decisions: pa.Table, run_id: str
) -> int:
    """Add decisions that are not there yet; run again, it adds none.

    Args:
        spark: The session.
        labels: `--labels`, created if missing.
        decisions: The columns of `LABELS` but `run_id`.
        run_id: Of the run that adds them.

    Returns:
        How many were added.

    Raises:
        DataContractError: A decision breaks the contract, or the table is no labels table.
        PartitionBusy: Another run adds to the folder.
        SettingsError: It cannot be written.
    """
    added = decisions.append_column("run_id", pa.array([run_id] * len(decisions), pa.string()))
    added = added.select(LABELS.names).cast(LABELS)
    check_labels(added, "decisions")
    with _held(labels, run_id):
        known = read_decisions(spark, labels)
        rows = spark.createDataFrame(added)
        fresh = rows.select(_DECISION).subtract(known.select(_DECISION))
        fresh = fresh.withColumn("run_id", F.lit(run_id)).select(LABELS.names).persist()
        count = fresh.count()
        if count:
            _write(spark, labels, fresh, run_id)
        fresh.unpersist()
    return count


def _write(spark: SparkSession, labels: Path | Table, fresh: DataFrame, run_id: str) -> None:
    if isinstance(labels, Table):
        open_table(spark, labels, LABELS_TABLE).append(fresh, {"seer.run-id": run_id})
    else:
        # One file, so that a reader sees all of the run's decisions or none.
        fresh.coalesce(1).write.mode("append").parquet(local_uri(labels))


@contextmanager
def _held(labels: Path | Table, run_id: str) -> Iterator[None]:
    """Keep other runs from adding to a folder; a table's commits follow each other."""
    if isinstance(labels, Table):
        yield
        return
    try:
        labels.mkdir(parents=True, exist_ok=True)
        lock = take_lock(labels / "_lock", str(labels), f"run {run_id}")
    except OSError as error:
        raise SettingsError(f"--labels {labels}: {error.strerror}") from error
    with lock:
        yield


def join_decisions(photos: DataFrame, newest: DataFrame) -> tuple[DataFrame, Mapping[str, int]]:
    """Let what was decided take the place of a manifest's labels.

    A listing that is in no category (not in the taxonomy, bad photos, a violation) loses its label;
    of one that the reviewer was unsure of nothing changes.

    A listing of the split `train`, or of none, that was not asked about at random goes to the split
    `chosen`: what the model was unsure of says nothing of how often it is right.

    Args:
        photos: What `jobs.stages.manifest.read_photos` returns.
        newest: From `newest_decisions`.

    Returns:
        The photos, and how many listings the decisions gave a label (`labels_added`), another one
        (`labels_changed`), the same one (`labels_confirmed`) or none any more
        (`labels_withdrawn`), and how many are not in the manifest (`labels_without_photos`).
    """
    decided = newest.select(
        "listing_id",
        F.col("decision").alias("decided"),
        F.col("category_id").alias("decided_category"),
        (F.col("selection") != Selection.RANDOM.value).alias("was_chosen"),
    ).persist()
    joined = photos.join(decided, "listing_id", "left")
    category, before = F.col("decided_category"), F.col("category_id")
    withdrawn = F.coalesce(F.col("decided").isin(WITHDRAWN), F.lit(False))
    with show_progress(photos.sparkSession, "joining what people decided"):
        found = aggregate(
            joined.where("decided is not null"),
            F.countDistinct("listing_id").alias("listings"),
            _listings(category.isNotNull() & before.isNull(), "labels_added"),
            _listings(category != before, "labels_changed"),
            _listings(category == before, "labels_confirmed"),
            _listings(withdrawn & before.isNotNull(), "labels_withdrawn"),
        ).asDict()
        listings = found.pop("listings")
        figures = {**found, "labels_without_photos": decided.count() - listings}
    split = F.col("split")
    moves = F.col("was_chosen") & F.coalesce(split == TRAIN, F.lit(True))
    changes = {
        "category_id": F.when(~withdrawn, F.coalesce(category, before)),
        "split": F.when(moves, CHOSEN).otherwise(split),
    }
    return joined.withColumns(changes).select(*photos.columns), figures


def with_reviewed(photos: DataFrame, others: DataFrame, newest: DataFrame) -> DataFrame:
    """Add the photos of listings that people decided, from a manifest that has no labels.

    Args:
        photos: Of labelled listings, from `jobs.stages.manifest.read_photos`.
        others: Of the listings that come in daily, from there as well. Their labels and splits are
            not looked at, and a photo that a listing has on several days is taken once.
        newest: From `newest_decisions`.

    Returns:
        The photos, and those of decided listings that are only among the others.
    """
    added = (
        others.join(newest.select("listing_id"), "listing_id", "left_semi")
        .join(photos.select("listing_id").distinct(), "listing_id", "left_anti")
        .dropDuplicates(["listing_id", "photo_key"])
        .withColumns({name: F.lit(None).cast("string") for name in ("category_id", "split")})
    )
    return photos.unionByName(added.select(photos.columns))


def _listings(condition: Column, name: str) -> Column:
    return F.countDistinct(F.when(condition, F.col("listing_id"))).alias(name)
