"""Send a day's review queue to Label Studio: as files, or to a server.

    python -m jobs.export_reviews --reviews reviews --ds 2026-11-25 --manifest manifest \
        --taxonomy tree.csv --output to-review --label-studio https://label-studio.example

Writes `tasks.json` and `label-config.xml`, which Label Studio imports. With `--label-studio` they
are sent as well, each listing once, with the token in LABEL_STUDIO_API_KEY.
"""

import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from pydantic import Field, model_validator

from jobs.command.locations import ManifestLocation
from jobs.command.settings import Day, JobSettings, begin, run_job


class ExportReviews(JobSettings):
    """Show the listings of a review queue to people, in Label Studio."""

    reviews: Path = Field(description="folder of the review queues, ds=…/reviews.parquet")
    ds: Day = Field(description="the partition's date, YYYY-MM-DD")
    manifest: ManifestLocation = Field(description="the manifest's folder or table")
    taxonomy: Path = Field(description="CSV, Shopify's or Google's taxonomy file")
    output: Path = Field(
        description="folder for tasks.json, label-config.xml and photos that lie in the manifest"
    )
    photo_folder: Path | None = Field(
        None, description="local folder whose photos Label Studio may show"
    )
    document_root: Path = Field(
        Path("/"), description="Label Studio's setting LOCAL_FILES_DOCUMENT_ROOT"
    )
    label_studio: str | None = Field(
        None, description="address of a server to send the listings to, as well"
    )
    project: str = Field(
        "Listing categories", min_length=3, max_length=50, description="its project's title"
    )
    overlap: int = Field(
        1, ge=1, description="so many people see each listing, in a project that is new"
    )

    @model_validator(mode="after")
    def _can_be_served(self) -> Self:
        for name in ("photo_folder", "output"):
            folder = getattr(self, name)
            if folder and self.document_root not in folder.resolve().parents:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} {folder}: is not below {self.document_root}")
        return self


if __name__ == "__main__":
    begin(ExportReviews)  # Before the imports below, which take seconds.

import json

import pyarrow as pa
from pyspark.sql import SparkSession

from jobs.command import job_run
from jobs.command.progress import show_progress
from jobs.command.report import write_report
from jobs.command.session import start_session
from jobs.label_studio.screen import as_task, label_config
from jobs.label_studio.server import LabelStudio, Project
from jobs.stages.manifest import read_photos
from jobs.stages.review_queue import read_queue
from schemas.errors import SettingsError
from schemas.taxonomy import Taxonomy
from schemas.taxonomy_readers import read_taxonomy
from seer_model.photos.fetch import local_path
from seer_model.tracking import runs

log = logging.getLogger(__name__)

_MOST_PHOTOS = 12
# What a browser shows, or Label Studio after the project's cloud storage was set up.
_WEB, _CLOUD = ("http", "https"), ("s3", "s3a", "gs", "azure-blob")
_ENDINGS = {b"\xff\xd8": "jpg", b"\x89P": "png", b"GI": "gif", b"RI": "webp"}


class _Found(NamedTuple):
    """Addresses of a listing's photos for a browser, and what cannot be shown, by reason."""

    addresses: list[str]
    not_shown: Counter[str]


def export(settings: ExportReviews) -> None:
    """Read the queue and its photos' addresses, write the tasks, send them, report."""
    started = perf_counter()
    ds = settings.ds.isoformat()
    runs.connect(settings.tracking_uri)
    taxonomy = read_taxonomy(settings.taxonomy)
    queue = read_queue(settings.reviews, ds)
    _check_version(queue, taxonomy)
    server = LabelStudio.connect(settings.label_studio) if settings.label_studio else None
    spark = start_session("export_reviews")
    with runs.tracked_run("export_reviews", settings.run_parameters()) as run_id:
        photos = _read_addresses(spark, queue, settings)
        tasks, left_out = [], 0
        for row in queue.to_pylist():
            found = photos.get(row["listing_id"])
            if found and found.addresses:
                tasks.append(as_task(row, found.addresses[:_MOST_PHOTOS], taxonomy))
            else:
                left_out += 1
        not_shown = sum((found.not_shown for found in photos.values()), Counter[str]())
        _warn(left_out, len(queue), not_shown)
        _write(tasks, taxonomy, settings.output)
        sent = _send(server, tasks, taxonomy, settings) if server else None
        job_run.reads(settings.reviews, ds=ds, rows=len(queue))
        job_run.reads(settings.manifest, ds=ds)
        job_run.writes(settings.output, rows=len(tasks))
        figures = {
            "ds": ds,
            "listings": len(queue),
            "tasks": len(tasks),
            "without_photo": left_out,
            "photos_not_shown": dict(not_shown),
            "taxonomy_version": taxonomy.version,
            "output": str(settings.output),
            **({} if sent is None else {"sent": sent[0], "page": sent[1].page}),
            "run_id": run_id,
            "seconds": round(perf_counter() - started, 1),
        }
        runs.log_figures(figures)
        write_report(figures, settings.report)


def _check_version(queue: pa.Table, taxonomy: Taxonomy) -> None:
    versions = set(queue["taxonomy_version"].to_pylist()) - {taxonomy.version}
    if versions:
        log.warning(
            "the queue was selected with taxonomy %s, and is decided in %s",
            *(", ".join(sorted(map(str, versions))), taxonomy.version),
        )


def _read_addresses(
    spark: SparkSession, queue: pa.Table, settings: ExportReviews
) -> dict[str, _Found]:
    """Where a browser finds the photos of each listing, in their order."""
    listings = spark.createDataFrame(queue.select(["listing_id"]))
    photos = (
        read_photos(spark, settings.manifest, settings.ds.isoformat())
        .join(listings, "listing_id", "left_semi")
        .select("listing_id", "image_index", "image_uri", "image_bytes", "photo_key", "problem")
        .orderBy("listing_id", "image_index", "photo_key")
    )
    found: dict[str, _Found] = {}
    with show_progress(spark, "reading the photos' addresses"):
        for row in photos.toLocalIterator():
            listing = found.setdefault(row["listing_id"], _Found([], Counter()))
            address, reason = _address(row, settings)
            if address is None:
                listing.not_shown[reason] += 1
            else:
                listing.addresses.append(address)
    return found


def _address(row: Any, settings: ExportReviews) -> tuple[str | None, str]:
    """Where a browser finds a photo; or None, and why it cannot be shown."""
    if row["problem"] is not None:
        return None, row["problem"]
    if row["image_uri"] is None:
        return _served(_write_photo(row, settings.output / "photos"), settings), ""
    path = local_path(row["image_uri"])
    if path is not None:
        photo, folder = Path(path).resolve(), settings.photo_folder
        if folder is None or folder.resolve() not in photo.parents:
            return None, "not in --photo-folder"
        return _served(photo, settings), ""
    scheme, _, rest = row["image_uri"].partition("://")
    if scheme.lower() in _WEB + _CLOUD:
        return f"{'s3' if scheme.lower() == 's3a' else scheme.lower()}://{rest}", ""
    return None, f"scheme {scheme}"


def _served(photo: Path, settings: ExportReviews) -> str:
    """Label Studio's address of a file."""
    below = photo.resolve().relative_to(settings.document_root)
    return f"/data/local-files/?d={quote(str(below))}"


def _write_photo(row: Any, folder: Path) -> Path:
    """Write a photo that lies in the manifest to a file, under its content's key."""
    data = bytes(row["image_bytes"])
    path = folder / f"{row['photo_key']}.{_ENDINGS.get(data[:2], 'bin')}"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise SettingsError(f"--output {folder.parent}: {error.strerror}") from error
    return path


def _warn(left_out: int, listings: int, not_shown: Counter[str]) -> None:
    if not_shown:
        reasons = ", ".join(f"{count} {reason}" for reason, count in not_shown.most_common())
        log.warning("%d photos cannot be shown: %s", not_shown.total(), reasons)
    if left_out:
        log.warning("%d of %d listings have no photo to show, and are left out", left_out, listings)


def _write(tasks: Sequence[dict[str, Any]], taxonomy: Taxonomy, output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "tasks.json").write_text(json.dumps(tasks, indent=1), encoding="utf-8")
        (output / "label-config.xml").write_text(label_config(taxonomy), encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"--output {output}: {error.strerror}") from error


def _send(
    server: LabelStudio,
    tasks: Sequence[dict[str, Any]],
    taxonomy: Taxonomy,
    settings: ExportReviews,
) -> tuple[int, Project]:
    """Send what was not sent before to the project, created if missing; returns how many."""
    project = server.project(settings.project)
    if project is None:
        project = server.create_project(settings.project, settings.overlap)
    project.show(taxonomy)
    for folder in _local_folders(tasks, settings):
        project.serve_folder(folder)
    return project.add_tasks(tasks), project


def _local_folders(tasks: Sequence[dict[str, Any]], settings: ExportReviews) -> Iterator[Path]:
    """The folders that the server must show photos of."""
    shown = "".join(photo["html"] for task in tasks for photo in task["data"]["photos"])
    for folder in (settings.photo_folder, settings.output / "photos"):
        if folder and _served(folder, settings) in shown:
            yield folder.resolve()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(ExportReviews, export, argv)


if __name__ == "__main__":
    sys.exit(main())
