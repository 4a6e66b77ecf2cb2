r"""Build a manifest from a folder of photos, with or without a table of listings.

    python -m jobs.build_manifest --images photos --listings listings.csv \
        --output manifest --ds 2026-11-25

The table's columns are `listing_id`, `path` and, optionally, `image_index`, `category_id` and
`split`; `--slice-column` and `--attribute-column` name further ones. Without a table every photo is
a listing of its own, named by its path.
"""

import hashlib
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from jobs.command.locations import Location, Table
from jobs.command.photo_settings import SCRATCH
from jobs.command.settings import Day, JobSettings, check_arguments, run_job


class BuildManifest(JobSettings):
    """Build a manifest partition from a folder of photos."""

    images: Path = Field(description="folder of photos")
    listings: Path | None = Field(
        None, description="CSV: listing_id, path[, image_index, category_id, split]"
    )
    slice_column: list[str] = Field(
        [], description="column of --listings to slice evaluations by (repeatable)"
    )
    attribute_column: list[str] = Field(
        [], description="column of --listings that is an attribute, such as material (repeatable)"
    )
    measure_photos: bool = Field(
        False,
        description="also slice evaluations by brightness, sharpness, object and colour, measured "
        "on each photo, and by day",
    )
    split: list[str] = Field([], description="keep only these splits (repeatable; default: all)")
    output: Location = Field(
        description="the manifest's folder, local or mounted, or table:CATALOG.NAMESPACE.NAME"
    )
    ds: Day = Field(description="the partition's date, YYYY-MM-DD")
    scratch: str | None = SCRATCH
    embed_bytes: bool = Field(
        False, description="put the photos into the manifest instead of their paths"
    )
    label_map: Path | None = Field(
        None, description="CSV that maps category_id to the labels in --label-column"
    )
    label_column: str = Field("shopify_id", description="column of --label-map with the labels")


if __name__ == "__main__":
    check_arguments(BuildManifest)  # Before the imports below, which take seconds.

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.command import job_run
from jobs.command.report import write_report
from jobs.command.session import parquet_reader, start_session
from jobs.stages.fingerprint import describe_rows
from jobs.stages.listing_table import Row, read_label_map, read_listings, settle_listings
from jobs.stages.photo_folder import find_photos, printable
from jobs.stages.photo_slices import Measure, photo_measure
from jobs.stages.publish.folder import FolderOutput
from jobs.stages.publish.opening import MANIFEST_TABLE, open_output
from jobs.stages.scratch import scratch_base, scratch_space
from schemas.errors import DataContractError, SettingsError
from schemas.manifest import MANIFEST
from seer_model.photos.attributes import ATTRIBUTES
from seer_model.processes import scratch_folder
from seer_model.tracking import runs

log = logging.getLogger(__name__)

_ROW_GROUP = 1000
# Readers hold a page in memory as a whole: 3 MB, if a photo has 200 KB.
_PAGE_ROWS = 16
_DAY = "day"


def build_manifest(settings: BuildManifest) -> None:
    """Collect the rows, write them with their photos, publish `OUTPUT/ds=DATE`, report.

    The MLflow run's dataset has the same digest as in runs of jobs that read the whole partition.
    """
    rows, found, warnings = collect_photos(settings)
    for warning in warnings:
        log.warning("%s", warning)
    job_run.reads(settings.images)
    job_run.reads(settings.listings)
    runs.connect(settings.tracking_uri)
    ds = settings.ds.isoformat()
    with runs.tracked_run("build_manifest", settings.run_parameters()) as run_id:
        counts: Counter[str] = Counter()
        if isinstance(settings.output, Table):
            data, published = _write_table(rows, settings, settings.output, counts, run_id)
        else:
            with FolderOutput(settings.output).hold(ds, run_id) as partition:
                partition.staged.mkdir()
                file = partition.staged / f"part-{run_id}.parquet"
                data = _write(rows, settings, file, counts)
                published = partition.publish({"seer.run-id": run_id})
        runs.log_data(data)
        job_run.writes(
            settings.output, ds=ds, rows=data["rows"], columns=MANIFEST, version=data["digest"]
        )
        figures = {
            "manifest": str(settings.output),
            "ds": ds,
            "photos": counts["photos"],
            "photos_missing": counts["missing"],
            "listings": len({row["listing_id"] for row in rows}),
            "listings_labelled": len({row["listing_id"] for row in rows if row["category_id"]}),
            "listings_by_split": _by_split(rows),
            **found,
            **({"photos_not_measured": counts["not measured"]} if settings.measure_photos else {}),
            "digest": data["digest"],
            "published": published,
            "run_id": run_id,
        }
        runs.log_figures(figures)
        write_report(figures, settings.report)


class Collected(NamedTuple):
    """What a manifest is made of.

    Attributes:
        rows: One a photo, with its path in `--images`.
        figures: What the report says of the input, and of what was left out.
        warnings: What was left out, one line each.
    """

    rows: list[Row]
    figures: dict[str, Any]
    warnings: list[str]


def collect_photos(settings: BuildManifest) -> Collected:
    """Read what the manifest is built from; writes nothing.

    Raises:
        SettingsError: A file or folder is missing.
        DataContractError: A CSV is unusable, there are no photos, or no label or split is left of
            those that were given.
    """
    images, listings = settings.images, settings.listings
    if not images.is_dir():
        raise SettingsError(f"--images {images}: no such folder")
    if (name := printable(images)) != str(images):
        raise SettingsError(f"--images {name}: the name is not UTF-8; rename the folder")
    taken = {_DAY, *ATTRIBUTES} & set(settings.slice_column) if settings.measure_photos else ()
    if taken:
        raise SettingsError(
            f"--slice-column {min(taken)}: --measure-photos makes a slice of this name; rename the "
            "column"
        )
    if listings is not None:
        found = _from_table(listings, settings)
    elif settings.slice_column or settings.attribute_column or settings.label_map is not None:
        raise SettingsError("--slice-column, --attribute-column and --label-map need --listings")
    else:
        found = _from_folder(images)
    wanted = [row for row in found.rows if not settings.split or row["split"] in settings.split]
    if not wanted:
        places = f" in the splits {', '.join(settings.split)}" if settings.split else ""
        there = f"; listings by split: {_by_split(found.rows)}" if found.rows else ""
        raise DataContractError(
            "; ".join([f"{listings or images}: no photo{places}{there}", *found.warnings])
        )
    return found._replace(rows=wanted)


def _from_folder(images: Path) -> Collected:
    photos, left_out = find_photos(images)
    alone = {"image_index": 0, "category_id": None, "split": None}
    alone |= {"slices": None, "attributes": None}
    return Collected(
        [{"listing_id": photo, "path": photo, **alone} for photo in photos],
        {"files_left_out": {reason: len(paths) for reason, paths in left_out.items()}},
        [
            f"left out: {len(paths)} files, {reason.replace('_', ' ')}, such as {paths[0]!r}"
            for reason, paths in left_out.items()
        ],
    )


def _from_table(listings: Path, settings: BuildManifest) -> Collected:
    rows, not_read = read_listings(
        listings, settings.images, settings.slice_column, settings.attribute_column
    )
    given = [name for name in ("category_id", "split") if any(row[name] for row in rows)]
    figures: dict[str, Any] = {"columns_not_read": not_read}
    warnings = []
    if settings.label_map is not None:
        labels = read_label_map(settings.label_map, settings.label_column)
        unmapped = sorted({c for row in rows if (c := row["category_id"]) and not labels.get(c)})
        figures["labels_not_mapped"] = unmapped
        if unmapped:
            warnings.append(
                f"{len(unmapped)} labels have none in {settings.label_map} and are dropped, such "
                f"as {unmapped[0]!r}"
            )
        for row in rows:
            row["category_id"] = labels.get(row["category_id"])
    for doubt, unsettled in settle_listings(rows).items():
        figures[f"listings_with_{doubt}"] = len(unsettled)
        if unsettled:
            warnings.append(
                f"{len(unsettled)} listings have {doubt.replace('_', ' ')}: the manifest gives "
                f"them neither a label nor a split, such as {unsettled[0]!r}"
            )
    for name in given:
        if not any(row[name] for row in rows):
            raise DataContractError(
                "; ".join([f"{listings}: no {name} is left of those given", *warnings])
            )
    return Collected(rows, figures, warnings)


def _by_split(rows: Iterable[Row]) -> dict[str, int]:
    splits = {row["listing_id"]: row["split"] or "none" for row in rows}
    return dict(sorted(Counter(splits.values()).items()))


def _write_table(
    rows: list[Row], settings: BuildManifest, name: Table, counts: Counter[str], run_id: str
) -> tuple[dict[str, Any], str]:
    """Write the rows to a partition of a table; returns what `_write` does, and the version."""
    spark = start_session("build_manifest")
    output = open_output(spark, name, MANIFEST_TABLE)
    with (
        output.hold(settings.ds.isoformat(), run_id) as partition,
        scratch_space(scratch_base(spark, settings.scratch)) as scratch,
        tempfile.TemporaryDirectory(prefix="manifest-", dir=scratch_folder()) as folder,
    ):
        file = Path(folder) / "manifest.parquet"
        data = _write(rows, settings, file, counts)
        partition.stage(parquet_reader(spark).parquet(scratch.take(file).uri), scratch)
        return data, partition.publish({"seer.run-id": run_id})


def _write(
    rows: list[Row], settings: BuildManifest, file: Path, counts: Counter[str]
) -> dict[str, Any]:
    """Write rows with their photos, and count them; returns their description.

    Raises:
        DataContractError: No photo can be read.
    """
    written = _write_rows(rows, settings, file, counts)
    data = describe_rows(written, str(settings.output), settings.ds.isoformat())
    if counts["missing"] == counts["photos"]:
        raise DataContractError(
            f"none of the {counts['photos']} photos can be read, such as "
            f"{settings.images / rows[0]['path']}; paths are relative to --images"
        )
    if unmeasured := counts["not measured"]:
        log.warning("%d photos could not be decoded and have no measured slices", unmeasured)
    return data


def _write_rows(
    rows: list[Row], settings: BuildManifest, file: Path, counts: Counter[str]
) -> Iterator[Row]:
    """Write rows with their photos, count and yield them."""
    few_values = ["listing_id", "category_id", "split"]
    with pq.ParquetWriter(
        file, MANIFEST, use_dictionary=few_values, write_batch_size=_PAGE_ROWS
    ) as writer:
        for group in _with_photos(rows, settings):
            writer.write_table(pa.Table.from_pylist(group, MANIFEST))
            counts["photos"] += len(group)
            there = [row for row in group if row["image_key"] is not None]
            counts["missing"] += len(group) - len(there)
            if settings.measure_photos:
                counts["not measured"] += sum(not _is_measured(row) for row in there)
            log.info("%d of %d photos", counts["photos"], len(rows))
            yield from group


def _with_photos(rows: Iterable[Row], settings: BuildManifest) -> Iterator[list[Row]]:
    rest = iter(rows)
    with ExitStack() as on_exit:
        pool = on_exit.enter_context(ThreadPoolExecutor())
        measure = None
        if settings.measure_photos:
            measure = on_exit.enter_context(photo_measure(os.cpu_count() or 1))
        while group := list(islice(rest, _ROW_GROUP)):
            yield list(pool.map(lambda row: _with_photo(row, settings, measure), group))


def _with_photo(row: Row, settings: BuildManifest, measure: Measure | None) -> dict[str, Any]:
    path = (settings.images / row["path"]).absolute()
    try:
        data = path.read_bytes() if path.is_file() else None
    except OSError:  # No permission, or a name too long.
        data = None
    embedded = settings.embed_bytes and data is not None
    slices = row["slices"]
    if measure is not None:
        measured = measure(data) if data is not None else {}
        slices = [*(slices or ()), (_DAY, settings.ds.isoformat()), *measured.items()]
    return {
        "listing_id": row["listing_id"],
        "image_index": row["image_index"],
        "category_id": row["category_id"],
        "split": row["split"],
        "slices": slices,
        "attributes": row["attributes"],
        "image_uri": None if embedded else str(path),
        "image_bytes": data if embedded else None,
        "image_key": None if data is None else hashlib.sha256(data).hexdigest(),
    }


def _is_measured(row: Row) -> bool:
    return any(name in ATTRIBUTES for name, _ in row["slices"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(BuildManifest, build_manifest, argv)


if __name__ == "__main__":
    sys.exit(main())
