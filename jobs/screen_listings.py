"""Screen the listings of a manifest partition: may they be shown?

    python -m jobs.screen_listings --manifest manifest --ds 2026-11-25 --embeddings embeddings \
        --known-photos known_photos.parquet --rules rules.toml --output screening

Photos are read in the same pass that embeds them: what the embedding store has already is not read
again. Publishes `OUTPUT/ds=…`, one row a listing with its action and the findings that explain it.
"""

import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from jobs.command.locations import Location, ManifestLocation
from jobs.command.photo_settings import SCRATCH, PhotoSettings
from jobs.command.settings import Day, begin, run_job
from seer_model.backbones.constants import DEFAULT_BACKBONE


class ScreenListings(PhotoSettings):
    """Screen every listing of a manifest partition, and publish an action for each."""

    manifest: ManifestLocation = Field(description="the manifest's folder or table")
    ds: Day = Field(description="the partition's date, YYYY-MM-DD")
    output: Location = Field(description="a folder or a table, partitioned by ds")
    rules: Path | None = Field(
        None,
        description="TOML file of rules for text (default: those of the package, which send "
        "contact details to review)",
    )
    known_photos: Path | None = Field(
        None, description="list of photos that must not come back, from jobs.list_known_photos"
    )
    model: str | None = Field(
        None,
        description="screener from jobs.train_screener, which finds concepts: models:/name/3, "
        "models:/name@alias, runs:/… or a folder",
    )
    backbone: str = Field(
        DEFAULT_BACKBONE,
        description="embeds the photos, so that other jobs find them in the store; "
        "a model of the registry, too; not with --model, which has its own",
    )
    embeddings: Location | None = Field(
        None, description="embedding store to read and add to, a folder or a table"
    )
    scratch: str | None = SCRATCH
    page: Path | None = Field(None, description="write findings with photos to this HTML file")

    @model_validator(mode="after")
    def _one_backbone(self) -> Self:
        if self.model is not None and "backbone" in self.model_fields_set:
            raise ValueError("--backbone: not with --model, whose backbone embeds the photos")
        return self


if __name__ == "__main__":
    begin(ScreenListings)  # Before the imports below, which take seconds.

from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.command import job_run
from jobs.command.progress import show_progress
from jobs.command.report import write_report
from jobs.command.session import start_session
from jobs.pages.screening import SHOWN, ScreenedListing, screening_page
from jobs.stages.accounting import check_accounting
from jobs.stages.embedding import embed_photos
from jobs.stages.fingerprint import describe_data
from jobs.stages.manifest import read_photos
from jobs.stages.publish.opening import SCREENING_TABLE, open_output
from jobs.stages.scratch import scratch_base, scratch_space
from jobs.stages.screening import screen_photos
from jobs.stages.signals import SignalReading
from jobs.stages.store.opening import hold_store, open_store
from jobs.stages.thumbnails import read_chosen
from jobs.stages.unread import check_drivers, check_unread
from jobs.stages.worker import ship_model
from schemas.embeddings import Signal
from schemas.screening import SCREENING, Action
from seer_model.backbones.backbone import Backbone, save_backbone
from seer_model.files import digest_folder
from seer_model.photos.limits import PhotoLimits
from seer_model.processes import scratch_folder
from seer_model.screener.concepts import Concepts
from seer_model.screener.folder import save_screener, screener_digest
from seer_model.screener.known_photos import KnownPhotos, read_known_photos
from seer_model.screener.rules import read_rules
from seer_model.screener.screener import Screener
from seer_model.tracking import registry, runs

log = logging.getLogger(__name__)

_EXACT_SIZE = 128


class _Model(NamedTuple):
    """Where vectors come from, and how the rows name what screened them."""

    backbone: Backbone
    name: str
    version: str
    concepts: Concepts | None


def screen(settings: ScreenListings) -> None:
    """Read, embed, screen, check, publish, show, report."""
    ds = settings.ds.isoformat()
    runs.connect(settings.tracking_uri)
    model = _resolve(settings)
    with tempfile.TemporaryDirectory(prefix="screener-", dir=scratch_folder()) as folder:
        # Before Spark is started: a mistake in the rules need not wait for it.
        rules, known = read_rules(settings.rules), settings.known_photos
        photos = KnownPhotos(read_known_photos(known)) if known else None
        screener = Screener(rules, photos, model.concepts)
        for unmet in screener.unmet_rules():
            log.warning("%s", unmet)
        save_screener(rules, known, model.concepts, Path(folder) / "screener")
        save_backbone(model.backbone, Path(folder) / "model" / "backbone")
        image_size = model.backbone.preprocessing.image_size
        if screener.known is not None and image_size < _EXACT_SIZE:
            log.warning(
                "photos are decoded for a backbone of %d px: edited known photos are found less "
                "surely below %d px",
                *(image_size, _EXACT_SIZE),
            )
        _screen(settings, ds, Path(folder), screener, model)


def _resolve(settings: ScreenListings) -> _Model:
    if settings.model is None:
        backbone = registry.resolve_backbone(settings.backbone)
        name = f"{backbone.architecture}: {backbone.origin}"
        return _Model(backbone, name, backbone.digest[:12], None)
    found = registry.resolve_screener(settings.model)
    return _Model(found.bundle.backbone, found.name, found.version, found.bundle.concepts)


def _screen(settings: ScreenListings, ds: str, local: Path, screener: Screener, by: _Model) -> None:
    started = perf_counter()
    backbone = by.backbone
    signals = SignalReading.of(_signals(screener))
    digest = screener_digest(screener.rules, settings.known_photos)
    spark = start_session("screen_listings")
    photos = read_photos(spark, settings.manifest, ds)
    output = open_output(spark, settings.output, SCREENING_TABLE)
    base = scratch_base(spark, settings.scratch, settings.output, settings.embeddings)
    with (
        runs.tracked_run("screen_listings", settings.run_parameters()) as run_id,
        output.hold(ds, run_id) as partition,
        hold_store(settings.embeddings),
        scratch_space(base) as scratch,
        open_store(settings.embeddings, backbone.digest, base) as store,
    ):
        data = describe_data(photos, settings.manifest, ds)
        runs.log_data(data)
        job_run.reads(settings.manifest, ds=ds, rows=data["rows"], version=data["digest"])
        check_drivers(data, settings)
        model = ship_model(spark, local / "model", backbone.digest)
        job_run.reads_model(settings.model or settings.backbone, by.version)
        rules = ship_model(spark, local / "screener", digest_folder(local / "screener"))
        listed = photos.where(F.col("listing_id").isNotNull())
        limits = settings.photo_limits()
        for attempt in store.attempts(spark):
            with attempt:
                embedded = embed_photos(listed, model, store, scratch, limits, signals)
                check_unread(embedded.unread, data["rows"], settings.max_unread_share)
                seen = embedded.photos if by.concepts else embedded.photos.drop("vector")
                rows = _with_origin(screen_photos(seen, rules), digest, by, run_id)
                with show_progress(spark, "screening listings"):
                    staged = partition.stage(rows, scratch)
        counts = _check_counts(photos, staged)
        published = partition.publish({"seer.run-id": run_id})
        job_run.adds_to(settings.embeddings, rows=embedded.embedded)
        job_run.writes(settings.output, ds=ds, rows=counts["listings"], columns=SCREENING)
        figures = {
            "ds": ds,
            "backbone": f"{backbone.architecture}: {backbone.origin}",
            "screener": f"{by.name} {by.version}",
            "text_rules": len(screener.rules.text),
            "known_photos": len(screener.known) if screener.known else 0,
            "concepts": by.concepts.names if by.concepts else [],
            "rules_unmet": screener.unmet_rules(),
            "rules_digest": digest,
            **counts,
            "photos_embedded": embedded.embedded,
            "photos_unread": embedded.unread,
            "devices": embedded.devices,
            "embeddings_recovered": store.recovered,
            "store_files_damaged": store.quarantined,
            "published": published,
            "run_id": run_id,
        }
        if settings.page is not None:
            page = screening_page(figures, _strictest(output.read(spark, ds), photos, limits))
            settings.page.parent.mkdir(parents=True, exist_ok=True)
            settings.page.write_text(page, encoding="utf-8")
            figures["page"] = str(settings.page)
        figures["seconds"] = round(perf_counter() - started, 1)
        runs.log_figures(figures)
        write_report(figures, settings.report)


def _signals(screener: Screener) -> Iterator[Signal]:
    """What has to be read of photos for the rules that there are."""
    if screener.known is not None:
        yield Signal.HASHES
    if screener.rules.text:
        yield Signal.TEXT


def _with_origin(screened: DataFrame, digest: str, by: _Model, run_id: str) -> DataFrame:
    origin = {
        "screener_name": by.name,
        "screener_version": by.version,
        "rules_digest": digest,
        "run_id": run_id,
        "screened_at": datetime.now(UTC),
    }
    for name, value in origin.items():
        screened = screened.withColumn(name, F.lit(value))
    return screened.select(*SCREENING.names)


def _check_counts(photos: DataFrame, staged: DataFrame) -> dict[str, Any]:
    """Check that every listing has one row, and that no photo was lost.

    Returns:
        Counts for the report.

    Raises:
        DataContractError: Something was lost or added; nothing was published.
    """
    outcomes = ("action", [action.value for action in Action])
    counts = check_accounting(photos, staged, outcomes, "photos_screened", "photos_rejected")
    finding = F.explode("findings").alias("finding")
    by_rule = staged.select("listing_id", finding).groupBy("finding.rule")
    counted = by_rule.agg(F.countDistinct("listing_id").alias("listings")).collect()
    return {**counts, "listings_by_rule": dict(sorted(counted))}


def _strictest(
    screened: DataFrame, photos: DataFrame, limits: PhotoLimits
) -> list[ScreenedListing]:
    """The strictest listings for the page, each with the photo of its strictest finding."""
    rows = (
        screened.where(F.size("findings") > 0)
        .orderBy(F.col("action") != Action.BLOCK, "listing_id")
        .limit(SHOWN)
        .select("listing_id", "action", "findings")
        .collect()
    )
    first = {
        row["listing_id"]: (row["listing_id"], row["findings"][0]["image_index"]) for row in rows
    }
    chosen = [each for each in first.values() if each[1] is not None]
    hidden = [first[row["listing_id"]] for row in rows if row["action"] == Action.BLOCK]
    thumbnails = read_chosen(photos, chosen, hidden, limits)
    return [
        ScreenedListing(
            row["listing_id"],
            row["action"],
            [finding.asDict() for finding in row["findings"]],
            thumbnails.get(first[row["listing_id"]]),
        )
        for row in rows
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(ScreenListings, screen, argv)


if __name__ == "__main__":
    sys.exit(main())
