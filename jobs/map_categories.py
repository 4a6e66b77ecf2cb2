"""Map what is kept of one taxonomy to another: a day's categories or manifest, or the labels.

    python -m jobs.map_categories --mapping map.csv --old-taxonomy old.csv --taxonomy new.csv \
        --categories categories --ds 2026-11-25 --output categories-new
    python -m jobs.map_categories … --manifest manifest --ds 2026-11-25 --output manifest-new
    python -m jobs.map_categories … --labels labels --output labels-new

No photo is read. Where a category became several, a model of the new tree chooses by the stored
embeddings, if it is named: `--model`, `--embeddings` and, for categories, `--manifest`.
"""

import logging
import sys
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from pydantic import Field, model_validator

from jobs.command.locations import Location, ManifestLocation
from jobs.command.photo_settings import SCRATCH
from jobs.command.settings import Day, JobSettings, begin, run_job


class MapCategories(JobSettings):
    """Map categories, a manifest's labels or decisions to another taxonomy."""

    mapping: Path = Field(
        description="CSV from_id,to_id (several lines: one of several; empty: retired), or "
        "Shopify's lines → and ⇒"
    )
    old_taxonomy: Path = Field(description="the tree that is mapped from")
    taxonomy: Path = Field(description="the tree that is mapped to")
    categories: Location | None = Field(
        None, description="map the published categories of a day, a folder or a table"
    )
    labels: Location | None = Field(
        None, description="map what people decided, a folder or a table"
    )
    manifest: ManifestLocation | None = Field(
        None, description="map the labels of a day's manifest; with the others, to score by"
    )
    ds: Day | None = Field(None, description="the partition's date, YYYY-MM-DD")
    output: Location = Field(description="where to: a folder or a table of the same kind")
    unresolved: Path | None = Field(
        None, description="write the listings without a category of the new tree to this CSV"
    )
    model: str | None = Field(
        None, description="a model of the new tree, which chooses where a category became several"
    )
    embeddings: Location | None = Field(
        None, description="embedding store for --model, a folder or a table"
    )
    least_share: float = Field(
        0.8,
        gt=0.5,
        le=1,
        description="share of the scores of several categories that one of them must have",
    )
    scratch: str | None = SCRATCH

    @property
    def kind(self) -> str:
        """What is mapped: categories, labels or manifest."""
        if self.categories is not None:
            return "categories"
        return "labels" if self.labels is not None else "manifest"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.categories is not None and self.labels is not None:
            raise ValueError("give one of --categories, --labels and --manifest to map")
        if self.categories is None and self.labels is None and self.manifest is None:
            raise ValueError("give --categories, --labels or --manifest to map")
        if (self.model is None) != (self.embeddings is None):
            raise ValueError("--model and --embeddings go together")
        if self.model is not None and self.manifest is None:
            raise ValueError("--model needs --manifest, which says whose photos are whose")
        if self.ds is None and (self.kind != "labels" or self.model is not None):
            raise ValueError("--ds is required")
        if self.output == getattr(self, self.kind):
            raise ValueError(f"--output is --{self.kind}: name another")
        return self


if __name__ == "__main__":
    begin(MapCategories)  # Before the imports below, which take seconds.

import pyarrow.csv
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from jobs.command import job_run
from jobs.command.folders import Folder
from jobs.command.locations import Table
from jobs.command.progress import show_progress
from jobs.command.report import write_report
from jobs.command.session import parquet_reader, start_session
from jobs.stages.category_mapping import choose_by_score, mapped_names, with_mapping
from jobs.stages.decisions import add_decisions, read_decisions
from jobs.stages.manifest import read_photos
from jobs.stages.mapped_rows import (
    map_candidates,
    mapped_categories,
    mapped_labels,
    mapped_manifest,
)
from jobs.stages.publish.opening import CATEGORIES_TABLE, MANIFEST_TABLE, open_output
from jobs.stages.scoring import score_photos
from jobs.stages.scratch import scratch_base, scratch_space
from jobs.stages.store.opening import hold_store, open_store
from jobs.stages.worker import ship_model
from jobs.tables.opening import read_table
from schemas.category_mapping import CategoryMapping, Outcome, read_mapping
from schemas.errors import DataContractError, SettingsError
from schemas.labels import CATEGORY_TASK
from schemas.taxonomy import Taxonomy
from schemas.taxonomy_readers import read_taxonomy
from seer_model.tracking import registry, runs

log = logging.getLogger(__name__)

_UNRESOLVED = (Outcome.AMBIGUOUS, Outcome.RETIRED, Outcome.UNMAPPED, Outcome.UNKNOWN)


def map_all(settings: MapCategories) -> None:
    """Read, look every category up, choose among several, publish, report."""
    started = perf_counter()
    runs.connect(settings.tracking_uri)
    old, new = read_taxonomy(settings.old_taxonomy), read_taxonomy(settings.taxonomy)
    mapping = read_mapping(settings.mapping, old, new)
    spark = start_session("map_categories")
    base = scratch_base(spark, settings.scratch, settings.output, settings.embeddings)
    with (
        runs.tracked_run("map_categories", settings.run_parameters()) as run_id,
        hold_store(settings.embeddings),
        scratch_space(base) as scratch,
    ):
        rows = _read(spark, settings, mapping)
        found = _look_up(rows, mapping, scratch, settings, base)
        written = _publish(found, mapping, scratch, run_id, settings)
        figures = {
            "kind": settings.kind,
            "ds": settings.ds.isoformat() if settings.ds else None,
            "from_taxonomy": old.version,
            "to_taxonomy": new.version,
            "mapping_digest": mapping.digest,
            "categories_mapped": len(mapping),
            **_count(found),
            "written": written,
            "unresolved": _write_unresolved(found, settings.unresolved),
            "output": str(settings.output),
            "run_id": run_id,
            "seconds": round(perf_counter() - started, 1),
        }
        job_run.reads(getattr(settings, settings.kind), ds=figures["ds"])
        job_run.reads(settings.mapping)
        job_run.writes(settings.output, ds=figures["ds"], rows=written)
        runs.log_figures(figures)
        write_report(figures, settings.report)


def _read(spark: SparkSession, settings: MapCategories, mapping: CategoryMapping) -> DataFrame:
    """The rows to map.

    Raises:
        DataContractError: They are of another taxonomy than the old one.
    """
    ds = settings.ds.isoformat() if settings.ds else ""
    match settings.kind:
        case "categories":
            assert settings.categories is not None  # noqa: S101 - it is the kind
            output = open_output(spark, settings.categories, CATEGORIES_TABLE)
            rows = output.read(spark, ds)
            versions = {row[0] for row in rows.select("taxonomy_version").distinct().collect()}
            if versions - {mapping.old.version}:
                raise DataContractError(
                    f"{output.describe(ds)}: is of taxonomy {', '.join(sorted(versions))}, and "
                    f"--old-taxonomy is {mapping.old.version}"
                )
            return rows
        case "labels":
            assert settings.labels is not None  # noqa: S101
            # A decision in another tree is not this mapping's to map.
            return read_decisions(spark, settings.labels).where(
                (F.col("taxonomy_version") == mapping.old.version)
                & (F.col("task") == CATEGORY_TASK)
            )
        case _:
            assert settings.manifest is not None  # noqa: S101
            read_photos(spark, settings.manifest, ds)  # Checks the contract.
            return _raw_manifest(spark, settings.manifest, ds)


def _raw_manifest(spark: SparkSession, manifest: str, ds: str) -> DataFrame:
    """A day's rows as they are written, with columns that no job reads."""
    if isinstance(manifest, Table):
        table = read_table(spark, manifest)
        assert table is not None  # noqa: S101 - its contract was checked
        return table.where(F.col("ds") == ds).drop("ds")
    folder = f"{manifest.rstrip('/')}/ds={ds}"
    rows = parquet_reader(spark).option("mergeSchema", True).parquet(folder)
    missing = [F.lit(None).cast("string").alias("category_id")]
    return rows.select("*", *([] if "category_id" in rows.columns else missing))


def _look_up(
    rows: DataFrame,
    mapping: CategoryMapping,
    scratch: Folder,
    settings: MapCategories,
    base: Folder,
) -> DataFrame:
    """The rows with `outcome`, `targets` and `new_category`; null where there is no category."""
    spark = rows.sparkSession
    used = [rows.select("category_id")]
    if settings.kind == "categories":
        used.append(rows.select(F.explode("candidates.category_id").alias("category_id")))
    with show_progress(spark, "looking categories up"):
        distinct = reduce(DataFrame.union, used).distinct().where("category_id is not null")
        names = mapped_names(spark, mapping, {row[0] for row in distinct.collect()}).persist()
    if settings.kind == "categories":
        rows = map_candidates(rows, names)
    found = with_mapping(rows, names, None)
    if settings.model is None:
        return found
    ambiguous = found.where(F.col("outcome") == Outcome.AMBIGUOUS.value)
    asked = ambiguous.select("listing_id", "targets").dropDuplicates(["listing_id"])
    chosen = _choose(asked, mapping.new, scratch, settings, base)
    return with_mapping(rows, names, chosen)


def _choose(
    asked: DataFrame, new: Taxonomy, scratch: Folder, settings: MapCategories, base: Folder
) -> DataFrame:
    """What a model of the new tree says of listings whose category became several."""
    spark = asked.sparkSession
    assert settings.model is not None  # noqa: S101 - checked by the settings
    assert settings.manifest is not None  # noqa: S101
    assert settings.ds is not None  # noqa: S101
    model = registry.resolve_bundle(settings.model)
    job_run.reads_model(settings.model, model.version)
    if model.bundle.tree.taxonomy.digest != new.digest:
        raise SettingsError(
            f"--model {settings.model}: is of taxonomy {model.bundle.tree.taxonomy.version}, and "
            f"--taxonomy is {new.version}"
        )
    shipped = ship_model(spark, model.folder, model.bundle.digest)
    photos = read_photos(spark, settings.manifest, settings.ds.isoformat())
    photos = photos.join(asked.select("listing_id"), "listing_id", "left_semi")
    with open_store(settings.embeddings, model.bundle.backbone.digest, base) as store:
        for attempt in store.attempts(spark):
            with attempt:
                stored = store.read(spark)
                if stored is None:
                    raise DataContractError(
                        f"--embeddings {settings.embeddings}: has no embedding of the model's "
                        "backbone"
                    )
                vectors = photos.join(stored, "photo_key").where("embedded")
                scores = score_photos(
                    vectors.select("listing_id", "image_index", "vector", "reject_reason"), shipped
                )
                chosen = choose_by_score(scores, asked, new, settings.least_share)
                with show_progress(spark, "scoring listings whose category became several"):
                    chosen.write.mode("overwrite").parquet((scratch / "chosen").uri)
    return parquet_reader(spark).parquet((scratch / "chosen").uri)


def _publish(
    found: DataFrame,
    mapping: CategoryMapping,
    scratch: Folder,
    run_id: str,
    settings: MapCategories,
) -> int:
    """Write the mapped rows; returns how many."""
    spark = found.sparkSession
    if settings.kind == "labels":
        return add_decisions(spark, settings.output, mapped_labels(found, mapping), run_id)
    assert settings.ds is not None  # noqa: S101 - checked by the settings
    if settings.kind == "categories":
        table, contract = mapped_categories(found, mapping, run_id), CATEGORIES_TABLE
    else:
        table, contract = mapped_manifest(found), MANIFEST_TABLE
    output = open_output(spark, settings.output, contract)
    with output.hold(settings.ds.isoformat(), run_id) as partition:
        with show_progress(spark, "mapping rows"):
            staged = partition.stage(table, scratch)
            read, written = found.count(), staged.count()
        if read != written:
            raise DataContractError(f"{read} rows read, and {written} written: nothing published")
        partition.publish({"seer.run-id": run_id, "seer.mapping-digest": mapping.digest})
    return written


def _count(found: DataFrame) -> dict[str, Any]:
    """Rows with a category by outcome, and the categories that were not resolved."""
    rows = found.groupBy("outcome", "category_id", "targets").count().collect()
    by_outcome = {each.value: 0 for each in Outcome}
    unresolved = []
    for row in rows:
        if row["outcome"] is None:
            continue
        by_outcome[row["outcome"]] += row["count"]
        if row["outcome"] in _UNRESOLVED:
            unresolved.append(
                {
                    "category_id": row["category_id"],
                    "outcome": row["outcome"],
                    "targets": row["targets"],
                    "rows": row["count"],
                }
            )
    unresolved.sort(key=lambda each: (-each["rows"], each["category_id"]))
    if lost := sum(by_outcome[name] for name in _UNRESOLVED):
        log.warning(
            "%d rows have no category of the new tree, such as those of %r (%s)",
            *(lost, unresolved[0]["category_id"], unresolved[0]["outcome"]),
        )
    return {
        "rows": sum(row["count"] for row in rows),
        "without_category": sum(row["count"] for row in rows if row["outcome"] is None),
        **by_outcome,
        "unresolved_categories": unresolved,
    }


def _write_unresolved(found: DataFrame, path: Path | None) -> str | None:
    """Write whose category was not resolved: `listing_id`, `category_id`, `outcome`, `targets`."""
    if path is None:
        return None
    rows = (
        found.where(F.col("outcome").isin([each.value for each in _UNRESOLVED]))
        .select("listing_id", "category_id", "outcome", F.array_join("targets", " "))
        .distinct()
        .orderBy("listing_id", "category_id")
        .toArrow()
    )
    rows = rows.rename_columns(["listing_id", "category_id", "outcome", "targets"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.csv.write_csv(rows, path)
    except OSError as error:
        raise SettingsError(f"--unresolved {path}: {error.strerror}") from error
    return str(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(MapCategories, map_all, argv)


if __name__ == "__main__":
    sys.exit(main())
