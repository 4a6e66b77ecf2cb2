"""Describe the photos of a manifest partition: alternative text for who cannot see them.

    python -m jobs.describe_listings --manifest manifest --ds 2026-11-25 --embeddings embeddings \
        --locale en --locale de --names de=taxonomy-de.csv --output descriptions

A text says what is known surely enough, and nothing else: the category, the photo's main colour,
attributes, what is written in it, and which of the listing's photos it is. Photos are read in the
same pass that embeds them: what the embedding store has already is not read again. Publishes
`OUTPUT/ds=…`, one row a photo and locale.
"""

import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import Field

from jobs.command.locations import Location, ManifestLocation
from jobs.command.photo_settings import SCRATCH, PhotoSettings
from jobs.command.settings import Day, begin, run_job


class DescribeListings(PhotoSettings):
    """Describe every photo of a manifest partition, and publish a text for each."""

    manifest: ManifestLocation = Field(description="the manifest's folder or table")
    ds: Day = Field(description="the partition's date, YYYY-MM-DD")
    output: Location = Field(description="a folder or a table, partitioned by ds")
    model: str = Field(
        "models:/listing-categorizer@champion",
        description="says the categories: models:/name@alias, models:/name/3, runs:/… or a "
        "bundle's folder",
    )
    attributes: list[str] = Field(
        [],
        description="model of an attribute, from jobs.train_head --attribute (repeatable)",
    )
    locale: list[str] = Field(
        ["en"], description="language of a text: en, de, es, or a file (repeatable)"
    )
    names: list[str] = Field(
        [],
        description="LANGUAGE=FILE: the model's taxonomy with names in that language (repeatable; "
        "default: the model's own names)",
    )
    labels: Location | None = Field(
        None, description="what people decided, a folder or a table; wins over the model"
    )
    without_text: bool = Field(
        False, description="do not read what is written in photos, which takes most of the time"
    )
    embeddings: Location | None = Field(
        None, description="embedding store to read and add to, a folder or a table"
    )
    scratch: str | None = SCRATCH
    page: Path | None = Field(None, description="write photos with their texts to this HTML file")


if __name__ == "__main__":
    begin(DescribeListings)  # Before the imports below, which take seconds.

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.command import job_run
from jobs.command.progress import show_progress
from jobs.command.report import write_report
from jobs.command.session import start_session
from jobs.pages.descriptions import SHOWN, DescribedPhoto, descriptions_page
from jobs.stages.aggregates import aggregate
from jobs.stages.decisions import decided_now
from jobs.stages.describing import describe_photos
from jobs.stages.embedding import EmbeddedPhotos, embed_photos
from jobs.stages.fingerprint import describe_data
from jobs.stages.manifest import read_photos
from jobs.stages.overrides import decide_by_people, outside_taxonomy
from jobs.stages.publish.opening import DESCRIPTIONS_TABLE, open_output
from jobs.stages.scoring import score_photos
from jobs.stages.scratch import scratch_base, scratch_space
from jobs.stages.signals import SignalReading
from jobs.stages.store.opening import hold_store, open_store
from jobs.stages.thumbnails import read_chosen
from jobs.stages.unread import check_drivers, check_unread
from jobs.stages.worker import ship_model
from schemas.descriptions import DESCRIPTIONS, StatementKind
from schemas.embeddings import Signal
from schemas.errors import DataContractError, SettingsError
from schemas.taxonomy import Taxonomy
from schemas.taxonomy_readers import read_taxonomy
from seer_model.categorizer.bundle import ResolvedBundle
from seer_model.describer.describer import Describer, Language, category_names
from seer_model.describer.grammar import read_locale
from seer_model.files import digest_folder
from seer_model.photos.limits import PhotoLimits
from seer_model.processes import scratch_folder
from seer_model.tracking import registry, runs

log = logging.getLogger(__name__)


def describe(settings: DescribeListings) -> None:
    """Read, embed, score, describe, check, publish, show, report."""
    runs.connect(settings.tracking_uri)
    model = registry.resolve_bundle(settings.model)
    attributes = _resolve_attributes(settings, model)
    describer = _describer(settings, model, attributes)
    with tempfile.TemporaryDirectory(prefix="describer-", dir=scratch_folder()) as folder:
        describer.save(Path(folder) / "describer")
        _describe(settings, Path(folder) / "describer", describer, model, attributes)


def _describe(
    settings: DescribeListings,
    local: Path,
    describer: Describer,
    model: ResolvedBundle,
    attributes: Mapping[str, ResolvedBundle],
) -> None:
    started = perf_counter()
    ds = settings.ds.isoformat()
    signals = SignalReading.of(_signals(settings))
    spark = start_session("describe_listings")
    photos = read_photos(spark, settings.manifest, ds)
    taxonomy = model.bundle.tree.taxonomy
    decisions = decided_now(spark, settings.labels)
    not_in_taxonomy = outside_taxonomy(decisions, taxonomy)
    output = open_output(spark, settings.output, DESCRIPTIONS_TABLE)
    base = scratch_base(spark, settings.scratch, settings.output, settings.embeddings)
    with (
        runs.tracked_run("describe_listings", settings.run_parameters()) as run_id,
        output.hold(ds, run_id) as partition,
        hold_store(settings.embeddings),
        scratch_space(base) as scratch,
        open_store(settings.embeddings, model.bundle.backbone.digest, base) as store,
    ):
        data = describe_data(photos, settings.manifest, ds)
        runs.log_data(data)
        job_run.reads(settings.manifest, ds=ds, rows=data["rows"], version=data["digest"])
        job_run.reads(settings.labels)
        job_run.reads_model(settings.model, model.version)
        check_drivers(data, settings)
        shipped = ship_model(spark, model.folder, model.bundle.digest)
        of_attributes = {
            name: ship_model(spark, each.folder, each.bundle.digest)
            for name, each in attributes.items()
        }
        texts = ship_model(spark, local, digest_folder(local))
        listed = photos.where(F.col("listing_id").isNotNull())
        limits = settings.photo_limits()

        def describe_all(embedded: EmbeddedPhotos) -> DataFrame:
            scores = score_photos(embedded.photos, shipped)
            categories = decide_by_people(scores, decisions, taxonomy)
            found = {
                name: score_photos(embedded.photos, each) for name, each in of_attributes.items()
            }
            described = describe_photos(embedded.photos, categories, found, texts)
            return _with_origin(described, model, run_id)

        for attempt in store.attempts(spark):
            with attempt:
                embedded = embed_photos(listed, shipped, store, scratch, limits, signals)
                check_unread(embedded.unread, data["rows"], settings.max_unread_share)
                with show_progress(spark, "describing photos"):
                    staged = partition.stage(describe_all(embedded), scratch)
        counts = _check_counts(photos, staged, len(describer.languages))
        published = partition.publish({"seer.run-id": run_id})
        job_run.adds_to(settings.embeddings, rows=embedded.embedded)
        job_run.writes(settings.output, ds=ds, rows=counts["texts"], columns=DESCRIPTIONS)
        figures = {
            "ds": ds,
            "model": f"{model.name} version {model.version}",
            "attributes": {name: f"{a.name} {a.version}" for name, a in attributes.items()},
            "locales": [each.locale.language for each in describer.languages],
            "categories_without_name": {
                each.locale.language: len(taxonomy) - len(each.names)
                for each in describer.languages
            },
            **counts,
            "decisions_not_in_taxonomy": not_in_taxonomy,
            "photos_embedded": embedded.embedded,
            "photos_unread": embedded.unread,
            "devices": embedded.devices,
            "embeddings_recovered": store.recovered,
            "store_files_damaged": store.quarantined,
            "published": published,
            "run_id": run_id,
        }
        if settings.page is not None:
            page = descriptions_page(figures, _shown(output.read(spark, ds), photos, limits))
            settings.page.parent.mkdir(parents=True, exist_ok=True)
            settings.page.write_text(page, encoding="utf-8")
            figures["page"] = str(settings.page)
        figures["seconds"] = round(perf_counter() - started, 1)
        runs.log_figures(figures)
        write_report(figures, settings.report)


def _signals(settings: DescribeListings) -> Iterator[Signal]:
    yield Signal.COLOURS
    if not settings.without_text:
        yield Signal.TEXT


def _resolve_attributes(
    settings: DescribeListings, model: ResolvedBundle
) -> dict[str, ResolvedBundle]:
    """The attributes' models by their names; all take the categorizer's vectors."""
    found: dict[str, ResolvedBundle] = {}
    for uri in settings.attributes:
        resolved = registry.resolve_bundle(uri)
        name = resolved.bundle.training.get("attribute")
        if name is None:
            raise SettingsError(f"--attributes {uri}: is no model of an attribute")
        if name in found:
            raise SettingsError(f"--attributes {uri}: another one is of {name}, too")
        if resolved.bundle.backbone.digest != model.bundle.backbone.digest:
            raise SettingsError(
                f"--attributes {uri}: has another backbone than {settings.model}; train it with "
                f"--backbone {settings.model}"
            )
        found[name] = resolved
    return found


def _describer(
    settings: DescribeListings, model: ResolvedBundle, attributes: Mapping[str, ResolvedBundle]
) -> Describer:
    taxonomy = model.bundle.tree.taxonomy
    localised = _localised(settings)
    languages = []
    for name in settings.locale:
        locale = read_locale(name)
        own = localised.pop(locale.language, None)
        if own is None and locale.language != "en":
            log.warning(
                "%s: no --names, so categories have the names of the model", locale.language
            )
        names = category_names(taxonomy, own)
        if missing := len(taxonomy) - len(names):
            log.warning("%s: %d categories have no name, and are not named", name, missing)
        languages.append(Language(locale, names))
    if localised:
        raise SettingsError(f"--names {min(localised)}=…: there is no --locale {min(localised)}")
    if len({each.locale.language for each in languages}) < len(languages):
        raise SettingsError(f"--locale {' '.join(settings.locale)}: a language is there twice")
    applies = {}
    for name, attribute in attributes.items():
        if limits := attribute.bundle.training.get("attribute_categories"):
            applies[name] = _below(limits, taxonomy)
            if not applies[name]:
                log.warning("%s: the model's taxonomy has none of its categories", name)
    return Describer(languages, applies)


def _localised(settings: DescribeListings) -> dict[str, Taxonomy]:
    found = {}
    for each in settings.names:
        language, equals, path = each.partition("=")
        if not equals:
            raise SettingsError(f"--names {each}: expected LANGUAGE=FILE")
        found[language] = read_taxonomy(path)
    return found


def _below(limits: Sequence[str], taxonomy: Taxonomy) -> list[str]:
    """Categories, and all below them."""
    chosen = set(limits)
    return [
        category.category_id
        for category in taxonomy
        if chosen.intersection((category.category_id, *taxonomy.ancestors(category.category_id)))
    ]


def _with_origin(described: DataFrame, model: ResolvedBundle, run_id: str) -> DataFrame:
    origin = {
        "model_name": model.name,
        "model_version": model.version,
        "run_id": run_id,
        "described_at": datetime.now(UTC),
    }
    for name, value in origin.items():
        described = described.withColumn(name, F.lit(value))
    return described.select(*DESCRIPTIONS.names)


def _check_counts(photos: DataFrame, staged: DataFrame, locales: int) -> dict[str, Any]:
    """Check that every photo has one row in each locale.

    Returns:
        Counts for the report.

    Raises:
        DataContractError: Something was lost or added; nothing was published.
    """
    read = aggregate(
        photos,
        F.count("listing_id").alias("photos"),
        F.count_if(F.col("listing_id").isNull()).alias("rows_without_listing"),
    )
    has_text, rejected = F.col("alt_text").isNotNull(), F.col("reject_reason").isNotNull()
    written = aggregate(
        staged,
        F.count("*").alias("rows"),
        F.count_if(has_text).alias("texts"),
        F.count_if(rejected).alias("rejected"),
        F.max(F.length("alt_text")).alias("longest"),
        *[F.count_if(_says(kind)).alias(kind.value) for kind in StatementKind],
    )
    if not read.photos:
        raise DataContractError(
            f"the manifest has no row with a listing_id ({read.rows_without_listing} have none): "
            "nothing was published"
        )
    if written.rows != read.photos * locales:
        raise DataContractError(
            f"{read.photos} photos read, but {written.rows} rows written for {locales} locales: "
            "nothing was published"
        )
    return {
        "photos": read.photos,
        "texts": written.texts,
        "rows_without_text": written.rows - written.texts - written.rejected,
        "rows_rejected": written.rejected,
        "longest_text": written.longest or 0,
        "statements": {kind.value: written[kind.value] for kind in StatementKind},
        "rows_without_listing": read.rows_without_listing,
    }


def _says(kind: StatementKind) -> Column:
    return F.exists("statements", lambda each: each["kind"] == kind.value)


def _shown(described: DataFrame, photos: DataFrame, limits: PhotoLimits) -> list[DescribedPhoto]:
    """The first photo of some listings with its texts, in all locales."""
    of_photo = described.where(F.col("alt_text").isNotNull()).groupBy("listing_id", "image_index")
    texts = of_photo.agg(
        F.collect_list(F.struct("locale", "alt_text", "statements")).alias("texts")
    )
    first = texts.groupBy("listing_id").agg(
        F.min("image_index").alias("image_index"), F.min_by("texts", "image_index").alias("texts")
    )
    rows = first.orderBy(F.xxhash64("listing_id")).limit(SHOWN).collect()
    chosen = [(row["listing_id"], row["image_index"]) for row in rows]
    thumbnails = read_chosen(photos, [each for each in chosen if each[1] is not None], [], limits)
    return [
        DescribedPhoto(
            row["listing_id"],
            row["image_index"],
            {each["locale"]: each["alt_text"] for each in row["texts"]},
            [statement.asDict() for statement in row["texts"][0]["statements"]],
            thumbnails.get((row["listing_id"], row["image_index"])),
        )
        for row in rows
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(DescribeListings, describe, argv)


if __name__ == "__main__":
    sys.exit(main())
