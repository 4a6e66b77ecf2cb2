"""Find photos that are in several listings, of a day or of days before: relisted, or stolen.

    python -m jobs.find_duplicates --manifest manifest --ds 2026-11-25 --window 30 \
        --embeddings embeddings --output duplicates

Embeddings name the candidates; their pixels decide, so photos that have candidates are read again.
Publishes `OUTPUT/ds=…`, one row a photo of a group.
"""

import logging
import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import Field

from jobs.command.locations import Location, ManifestLocation
from jobs.command.photo_settings import SCRATCH, PhotoSettings
from jobs.command.settings import Day, begin, run_job
from seer_model.backbones.constants import DEFAULT_BACKBONE


class FindDuplicates(PhotoSettings):
    """Find photos that are in several listings, edited or not."""

    manifest: ManifestLocation = Field(description="the manifest's folder or table")
    ds: Day = Field(description="the partition's date, YYYY-MM-DD")
    window: int = Field(0, ge=0, description="days before it to compare with, as well")
    output: Location = Field(description="a folder or a table, partitioned by ds")
    backbone: str = Field(
        DEFAULT_BACKBONE, description="its embeddings are compared; a model of the registry, too"
    )
    embeddings: Location | None = Field(
        None, description="embedding store to read and add to, a folder or a table"
    )
    scratch: str | None = SCRATCH
    neighbours: int = Field(10, ge=1, description="candidates of each photo")
    least_cosine: float = Field(
        0.15, ge=-1, le=1, description="of the whitened embeddings of a photo and its candidate"
    )
    least_score: float = Field(
        0.95, gt=0, le=1, description="of the pixels of photos that are the same"
    )
    cell: int = Field(50_000, ge=10, description="about so many photos are searched at a time")


if __name__ == "__main__":
    begin(FindDuplicates)  # Before the imports below, which take seconds.

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jobs.command import job_run
from jobs.command.folders import Folder
from jobs.command.progress import show_progress
from jobs.command.report import write_report
from jobs.command.session import parquet_reader, start_session
from jobs.stages.aggregates import aggregate
from jobs.stages.embedding import embed_photos
from jobs.stages.fingerprint import describe_data
from jobs.stages.manifest import list_days, read_photos
from jobs.stages.near_photos import candidate_pairs, grey_squares, resembling_pairs
from jobs.stages.publish.opening import DUPLICATES_TABLE, open_output
from jobs.stages.scratch import scratch_base, scratch_space
from jobs.stages.store.opening import hold_store, open_store
from jobs.stages.unread import check_drivers
from jobs.stages.worker import ship_model
from schemas.duplicates import DUPLICATES
from schemas.errors import DataContractError
from seer_model.backbones.backbone import save_backbone
from seer_model.processes import scratch_folder
from seer_model.reviews.neighbours import Neighbourhoods
from seer_model.tracking import registry, runs

log = logging.getLogger(__name__)

_SAMPLE = 50_000


def find(settings: FindDuplicates) -> None:
    """Embed what the store lacks, name candidates, compare pixels, group, publish, report."""
    started = perf_counter()
    ds = settings.ds.isoformat()
    runs.connect(settings.tracking_uri)
    backbone = registry.resolve_backbone(settings.backbone)
    spark = start_session("find_duplicates")
    photos, days = _read(spark, settings)
    output = open_output(spark, settings.output, DUPLICATES_TABLE)
    base = scratch_base(spark, settings.scratch, settings.output, settings.embeddings)
    with (
        runs.tracked_run("find_duplicates", settings.run_parameters()) as run_id,
        output.hold(ds, run_id) as partition,
        hold_store(settings.embeddings),
        scratch_space(base) as scratch,
        open_store(settings.embeddings, backbone.digest, base) as store,
        tempfile.TemporaryDirectory(prefix="backbone-", dir=scratch_folder()) as folder,
    ):
        data = describe_data(photos.where("is_new"), settings.manifest, ds)
        runs.log_data(data)
        check_drivers(data, settings)
        save_backbone(backbone, Path(folder) / "model" / "backbone")
        model = ship_model(spark, Path(folder) / "model", backbone.digest)
        limits = settings.photo_limits()
        for attempt in store.attempts(spark):
            with attempt:
                embedded = embed_photos(_once(photos), model, store, scratch, limits)
                vectors = _keep(_with_keys(embedded.photos), scratch / "vectors")
        counts = aggregate(vectors, F.count("*").alias("all"), F.count_if("is_new").alias("new"))
        pairs = _pairs(vectors, counts["all"], scratch, settings)
        read = _keep(grey_squares(_sources(photos, pairs), limits), scratch / "squares")
        with show_progress(spark, "comparing photos"):
            same = resembling_pairs(pairs, read, settings.least_score).toArrow()
        groups = _groups(spark, same, photos)
        rows = groups.withColumn("run_id", F.lit(run_id)).select(*DUPLICATES.names)
        with show_progress(spark, "grouping photos"):
            staged = partition.stage(rows, scratch)
        figures = {
            "ds": ds,
            "days": days,
            "backbone": f"{backbone.architecture}: {backbone.origin}",
            "photos": counts["new"],
            "photos_before": counts["all"] - counts["new"],
            "photos_embedded": embedded.embedded,
            "candidate_pairs": pairs.count(),
            "photos_compared": read.count(),
            "pairs_found": len(same),
            **_count(staged),
            "store_files_damaged": store.quarantined,
        }
        figures["published"] = partition.publish({"seer.run-id": run_id})
        job_run.reads(settings.manifest, ds=ds, rows=data["rows"], version=data["digest"])
        job_run.adds_to(settings.embeddings, rows=embedded.embedded)
        job_run.writes(settings.output, ds=ds, rows=figures["rows"], columns=DUPLICATES)
        figures |= {"run_id": run_id, "seconds": round(perf_counter() - started, 1)}
        runs.log_figures(figures)
        write_report(figures, settings.report)


def _read(spark: SparkSession, settings: FindDuplicates) -> tuple[DataFrame, int]:
    """The photos of the day (`is_new`) and of the window, with `seen_on`; and how many days."""
    first = settings.ds - timedelta(days=settings.window)
    days = [day for day in list_days(spark, settings.manifest) if first <= day < settings.ds]
    photos: DataFrame | None = None
    for day in [settings.ds, *days]:
        read = read_photos(spark, settings.manifest, day.isoformat()).where("problem is null")
        read = read.where("listing_id is not null").withColumn("seen_on", F.lit(day))
        photos = read if photos is None else photos.unionByName(read)
    assert photos is not None  # noqa: S101 - it has the day itself
    return photos.withColumn("is_new", F.col("seen_on") == F.lit(settings.ds)), 1 + len(days)


def _once(photos: DataFrame) -> DataFrame:
    """Each photo once, however many listings have it; its key stands for the listing's id."""
    once = photos.dropDuplicates(["photo_key"])
    of_day = photos.where("is_new").select("photo_key").distinct().withColumn("new", F.lit("new"))
    # What comes back from embedding has these two columns, and no others of ours.
    return once.join(of_day, "photo_key", "left").withColumns(
        {"listing_id": F.col("photo_key"), "split": F.col("new")}
    )


def _with_keys(embedded: DataFrame) -> DataFrame:
    """photo_key, vector and is_new of the photos that could be read."""
    return embedded.where("vector is not null").select(
        F.col("listing_id").alias("photo_key"), "vector", F.col("split").isNotNull().alias("is_new")
    )


def _keep(rows: DataFrame, folder: Folder) -> DataFrame:
    """Write rows to scratch space, so that they are not computed twice."""
    rows.write.mode("overwrite").parquet(folder.uri)
    return parquet_reader(rows.sparkSession).parquet(folder.uri)


def _pairs(vectors: DataFrame, photos: int, scratch: Folder, settings: FindDuplicates) -> DataFrame:
    """Pairs of photos whose embeddings are near."""
    share = min(1.0, 1.2 * _SAMPLE / max(photos, 1))
    sampled = vectors.sample(share, seed=0).select("vector").limit(_SAMPLE).toArrow()["vector"]
    sample = np.frombuffer(b"".join(sampled.to_pylist()), "<f2").reshape(len(sampled), -1)
    if len(sample) < 2:
        raise DataContractError("fewer than two photos can be read: there is nothing to compare")
    where = Neighbourhoods.fit(sample.astype(np.float32), photos, cell=settings.cell)
    pairs = candidate_pairs(vectors, where, settings.neighbours, settings.least_cosine)
    with show_progress(vectors.sparkSession, "searching for candidates"):
        return _keep(pairs, scratch / "pairs")


def _sources(photos: DataFrame, pairs: DataFrame) -> DataFrame:
    """Where to read the photos of the pairs, each once."""
    keys = pairs.select(F.explode(F.array("first", "second")).alias("photo_key")).distinct()
    return photos.join(keys, "photo_key", "left_semi").dropDuplicates(["photo_key"])


def _groups(spark: SparkSession, same: pa.Table, photos: DataFrame) -> DataFrame:
    """The rows of the groups that have several listings, one of them of the day."""
    keyed = photos.join(_components(spark, same), "photo_key", "left").withColumns(
        {
            "component": F.coalesce("component", "photo_key"),
            # Whoever has the very same photo.
            "score": F.coalesce("score", F.lit(1.0)).cast("float"),
        }
    )
    several = (
        keyed.groupBy("component")
        .agg(
            F.countDistinct("listing_id").alias("listings"),
            F.bool_or("is_new").alias("of_day"),
            F.min(F.struct("seen_on", "listing_id", "image_index", "photo_key")).alias("first"),
        )
        .where("of_day and listings > 1")
    )
    row = F.struct("seen_on", "listing_id", "image_index", "photo_key")
    return keyed.join(several, "component").select(
        F.col("first.photo_key").alias("group_id"),
        "listing_id",
        "image_index",
        "photo_key",
        "seen_on",
        row.eqNullSafe(F.col("first")).alias("is_representative"),
        "score",
    )


def _components(spark: SparkSession, same: pa.Table) -> DataFrame:
    """photo_key, component, and score, the best of its pairs.

    On the driver: of ten million pairs it takes some hundred bytes each.
    """
    ends = np.array([same["first"].to_pylist(), same["second"].to_pylist()], object)
    names, numbers = np.unique(ends.reshape(-1), return_inverse=True)
    one, other = numbers.reshape(2, -1)
    scores = same["score"].to_numpy()
    graph = coo_array((np.ones(len(one)), (one, other)), (len(names), len(names)))
    _, component = connected_components(graph, directed=False)
    best = np.zeros(len(names), np.float32)
    np.maximum.at(best, one, scores)
    np.maximum.at(best, other, scores)
    return spark.createDataFrame(
        pa.table(
            {
                "photo_key": pa.array(names, pa.string()),
                "component": pa.array([f"{number}" for number in component], pa.string()),
                "score": pa.array(best),
            }
        )
    )


def _count(staged: DataFrame) -> dict[str, Any]:
    counts = aggregate(
        staged,
        F.count("*").alias("rows"),
        F.countDistinct("group_id").alias("groups"),
        F.countDistinct("listing_id").alias("listings"),
    ).asDict()
    largest = staged.groupBy("group_id").count().agg(F.max("count")).collect()[0][0]
    return {**counts, "largest_group": largest or 0}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(FindDuplicates, find, argv)


if __name__ == "__main__":
    sys.exit(main())
