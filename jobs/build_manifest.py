r"""Build a manifest from a folder of photos, with or without a table of listings.

    python -m jobs.build_manifest --images photos --listings listings.csv \
        --output manifest --ds 2026-11-25

The table's columns are `listing_id`, `path` and, optionally, `image_index`, `category_id` and
`split`; `--slice-column` names further ones. Without a table every photo is a listing of its own,
named by its path.
"""

import csv
import hashlib
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

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
    split: list[str] = Field([], description="keep only these splits (repeatable; default: all)")
    output: Path = Field(description="the manifest's folder")
    ds: Day = Field(description="the partition's date, YYYY-MM-DD")
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

from jobs.command.report import write_report
from jobs.stages.fingerprint import describe_rows
from jobs.stages.publish import hold_partition
from schemas.errors import DataContractError, SettingsError
from schemas.manifest import MANIFEST
from seer_model.tracking import runs

log = logging.getLogger(__name__)

_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".mpo"}
)
_ROW_GROUP = 1000
# Readers hold a page in memory as a whole: 3 MB, if a photo has 200 KB.
_PAGE_ROWS = 16
_INDEX_DIGITS = 9


def build_manifest(settings: BuildManifest) -> None:
    """Collect the rows, write them with their photos, publish `OUTPUT/ds=DATE`, report.

    The MLflow run's dataset has the same digest as in runs of jobs that read the whole partition.
    """
    rows = manifest_rows(settings)
    runs.connect(settings.tracking_uri)
    ds = settings.ds.isoformat()
    with runs.tracked_run("build_manifest", settings.run_parameters()) as run_id:
        counts: Counter[str] = Counter()
        with hold_partition(settings.output, ds, run_id) as partition:
            partition.staged.mkdir()
            file = partition.staged / f"part-{run_id}.parquet"
            written = _write(rows, settings, file, counts)
            data = describe_rows(written, str(settings.output), ds)
            partition.publish()
        runs.log_data(data)
        figures = {
            "manifest": str(settings.output),
            "ds": ds,
            "photos": counts["photos"],
            "photos_missing": counts["missing"],
            "listings": len({row["listing_id"] for row in rows}),
            "listings_labelled": len({row["listing_id"] for row in rows if row["category_id"]}),
            "digest": data["digest"],
            "run_id": run_id,
        }
        runs.log_figures(figures)
        write_report(figures, settings.report)


def manifest_rows(settings: BuildManifest) -> list[dict[str, Any]]:
    """Return the manifest's rows, with the photos' paths; writes nothing.

    Raises:
        SettingsError: A file or folder is missing.
        DataContractError: A CSV is unusable, or there are no photos.
    """
    if not settings.images.is_dir():
        raise SettingsError(f"--images {settings.images}: no such folder")
    if settings.listings is not None:
        rows = list(_from_csv(settings.listings, settings.slice_column))
    elif settings.slice_column:
        raise SettingsError("--slice-column names a column of --listings: give both")
    else:
        rows = list(_from_folder(settings.images))
    if settings.split:
        rows = [row for row in rows if row["split"] in settings.split]
    if not rows:
        raise DataContractError(
            f"{settings.listings or settings.images}: no photo"
            + (f" in the splits {', '.join(settings.split)}" if settings.split else "")
        )
    if settings.label_map is not None:
        labels = _read_label_map(settings.label_map, settings.label_column)
        for row in rows:
            row["category_id"] = labels.get(row["category_id"])
    return rows


def _from_folder(images: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(images.rglob("*")):
        if path.suffix.lower() in _SUFFIXES and not path.is_dir():
            name = path.relative_to(images).as_posix()
            yield {
                "listing_id": name,
                "image_index": 0,
                "path": name,
                "category_id": None,
                "split": None,
                "slices": None,
            }


def _from_csv(listings: Path, slice_columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    indexes: Counter[str] = Counter()
    for line, row in _read_csv(listings, ("listing_id", "path", *slice_columns)):
        listing = row["listing_id"]
        if not listing or not row["path"]:
            raise DataContractError(f"{listings}, line {line}: listing_id or path is empty")
        index = row.get("image_index") or str(indexes[listing])
        indexes[listing] += 1
        if not index.isdecimal() or len(index) > _INDEX_DIGITS:
            raise DataContractError(
                f"{listings}, line {line}: image_index {index[:20]!r} is not a number of at most "
                f"{_INDEX_DIGITS} digits"
            )
        yield {
            "listing_id": listing,
            "image_index": int(index),
            "path": row["path"],
            "category_id": row.get("category_id") or None,
            "split": row.get("split") or None,
            "slices": [(name, row[name]) for name in slice_columns if row[name]] or None,
        }


def _read_csv(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    with file:
        reader = csv.DictReader(file)
        try:
            missing = [name for name in required if name not in (reader.fieldnames or ())]
            if missing:
                raise DataContractError(f"{path}: no column {', '.join(missing)}")
            for row in reader:
                yield reader.line_num, row
        except UnicodeDecodeError as error:
            raise DataContractError(f"{path}: not UTF-8 text; save it as UTF-8") from error
        except csv.Error as error:
            raise DataContractError(f"{path}, after line {reader.line_num}: {error}") from error


def _read_label_map(path: Path, column: str) -> dict[str | None, str | None]:
    rows = _read_csv(path, ("category_id", column))
    return {row["category_id"]: row[column] or None for _, row in rows}


def _write(
    rows: list[dict[str, Any]], settings: BuildManifest, file: Path, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Write rows with their photos, count and yield them."""
    few_values = ["listing_id", "category_id", "split"]
    with pq.ParquetWriter(
        file, MANIFEST, use_dictionary=few_values, write_batch_size=_PAGE_ROWS
    ) as writer:
        for group in _with_photos(rows, settings):
            writer.write_table(pa.Table.from_pylist(group, MANIFEST))
            counts["photos"] += len(group)
            counts["missing"] += sum(row["image_key"] is None for row in group)
            log.info("%d of %d photos", counts["photos"], len(rows))
            yield from group


def _with_photos(
    rows: Iterable[dict[str, Any]], settings: BuildManifest
) -> Iterator[list[dict[str, Any]]]:
    rest = iter(rows)
    with ThreadPoolExecutor() as pool:
        while group := list(islice(rest, _ROW_GROUP)):
            yield list(pool.map(lambda row: _with_photo(row, settings), group))


def _with_photo(row: dict[str, Any], settings: BuildManifest) -> dict[str, Any]:
    path = (settings.images / row["path"]).absolute()
    data = path.read_bytes() if path.is_file() else None
    embedded = settings.embed_bytes and data is not None
    return {
        "listing_id": row["listing_id"],
        "image_index": row["image_index"],
        "category_id": row["category_id"],
        "split": row["split"],
        "slices": row["slices"],
        "image_uri": None if embedded else str(path),
        "image_bytes": data if embedded else None,
        "image_key": None if data is None else hashlib.sha256(data).hexdigest(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(BuildManifest, build_manifest, argv)


if __name__ == "__main__":
    sys.exit(main())
