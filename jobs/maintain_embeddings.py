"""Compact an embedding store, and drop the embeddings that are no longer needed.

    python -m jobs.maintain_embeddings --embeddings embeddings \
        --manifest manifest --keep-since 2026-09-01 --drop-backbone DIGEST

In a folder, every backbone's runs become one run of few files with each photo once, and damaged
files are quarantined in `_damaged` in the store: find out why they are damaged, and delete them. In
a table, its format's own procedures merge files and remove old versions.
"""

import sys
from collections.abc import Sequence
from datetime import date
from functools import reduce
from time import perf_counter

from pydantic import Field

from jobs.command.locations import Location, ManifestLocation, Table
from jobs.command.settings import Day, JobSettings, check_arguments, run_job


class MaintainEmbeddings(JobSettings):
    """Compact an embedding store; drop embeddings of photos and backbones no longer used."""

    embeddings: Location = Field(description="the embedding store, a folder or a table")
    manifest: ManifestLocation | None = Field(
        None, description="the manifest's folder or table; with --keep-since, drop photos not in it"
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
from jobs.command.report import write_report
from jobs.command.session import start_session
from jobs.stages.fingerprint import describe_data
from jobs.stages.manifest import list_days, read_photos
from jobs.stages.store.folder_upkeep import maintain_folder
from jobs.stages.store.table_upkeep import maintain_table
from schemas.errors import SettingsError
from seer_model.tracking import runs


def maintain(settings: MaintainEmbeddings) -> None:
    """Remove leftovers, drop backbones, expire and compact the others, report.

    The run's metrics are the report's numbers, those of a backbone as `backbone_DIGEST.NAME`.
    """
    store = settings.embeddings
    if (settings.manifest is None) != (settings.keep_since is None):
        raise SettingsError("--manifest and --keep-since go together: give both or neither")
    runs.connect(settings.tracking_uri)
    started = perf_counter()
    dropping = sorted(set(settings.drop_backbone))

    def start() -> SparkSession:
        return start_session("maintain_embeddings")

    def keys(spark: SparkSession) -> DataFrame | None:
        return _keys_to_keep(spark, settings)

    with runs.tracked_run("maintain_embeddings", settings.run_parameters()) as run_id:
        if isinstance(store, Table):
            spark = start()
            figures = maintain_table(spark, store, keys(spark), dropping)
        else:
            figures = maintain_folder(store, start, keys, dropping)
        figures = {
            "embeddings": str(store),
            "dropped": dropping,
            **figures,
            "seconds": round(perf_counter() - started, 1),
            "run_id": run_id,
        }
        job_run.adds_to(store)
        runs.log_figures(figures)
        write_report(figures, settings.report)


def _keys_to_keep(spark: SparkSession, settings: MaintainEmbeddings) -> DataFrame | None:
    """The unique `image_key` of recent photos; None if all are kept."""
    if settings.manifest is None or settings.keep_since is None:
        return None
    recent = _recent_photos(spark, settings.manifest, settings.keep_since)
    data = describe_data(recent, settings.manifest, None)
    runs.log_data(data)
    job_run.reads(settings.manifest, rows=data["rows"], version=data["digest"])
    return recent.select(F.col("photo_key").alias("image_key")).distinct()


def _recent_photos(spark: SparkSession, manifest: str, since: date) -> DataFrame:
    """The photos of the partitions since a day.

    Raises:
        DataContractError: The manifest breaks its contract, or a partition's `ds` is not a date.
        SettingsError: There is no such photo, so every embedding would be dropped.
    """
    days = [day for day in list_days(spark, manifest) if day >= since]
    recent = [read_photos(spark, manifest, day.isoformat()) for day in days]
    if not recent:
        raise SettingsError(f"--keep-since {since}: {manifest} has no photo of that day or later")
    return reduce(DataFrame.union, recent)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(MaintainEmbeddings, maintain, argv)


if __name__ == "__main__":
    sys.exit(main())
