"""From photos to categories in one go: sample listings, or your own.

    python -m demo --output demo-output
    python -m demo --photos photos --listings listings.csv --taxonomy taxonomy.csv

Each step but the drawing is a job, run in this process with the arguments that a shell would give
it. `OUTPUT/demo.log` has these commands and what the jobs printed.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from demo.result import show_result
from demo.samples import draw_sample_listings
from demo.steps import Steps
from jobs import (
    build_manifest,
    categorize_listings,
    describe_listings,
    list_known_photos,
    promote_challenger,
    screen_listings,
    train_head,
)
from jobs.command.settings import JobSettings, run_job
from jobs.stages.listing_table import Row
from schemas.errors import SettingsError
from schemas.taxonomy_readers import read_taxonomy
from seer_model.backbones.constants import DEFAULT_BACKBONE

NAME = "listing-categorizer"

# Few of the drawings are of a kind never seen; of somebody's own photos more may be.
_FOR_DRAWINGS = ["--unseen-share", "0.05"]
_JOBS = 7
_SIGNALS = ("hashes", "text", "colours")
_LOCALES = ("en", "de", "es")


class Demo(JobSettings):
    """Categorize sample listings, or your own photos, end to end on this machine."""

    photos: Path | None = Field(None, description="folder of your photos (default: drawn samples)")
    listings: Path | None = Field(
        None, description="CSV: listing_id, image_index, path[, category_id, split], with --photos"
    )
    taxonomy: Path | None = Field(None, description="taxonomy of the labels, with --listings")
    output: Path = Field(Path("demo-output"), description="folder for all that is written")
    backbone: str = Field(DEFAULT_BACKBONE, description="--backbone of jobs.train_head")
    target_precision: float = Field(
        0.8, gt=0, lt=1, description="share of assigned listings that is to be right"
    )
    samples: int = Field(640, ge=12, description="sample listings to draw")

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.listings is None) != (self.taxonomy is None):
            raise ValueError("--listings and --taxonomy go together")
        if self.listings is not None and self.photos is None:
            raise ValueError("--listings needs --photos, the folder its paths lie in")
        return self


class _Source(NamedTuple):
    """What a manifest is built from; no splits means all."""

    images: Path
    listings: Path | None
    splits: list[str]


class _Inputs(NamedTuple):
    """What to learn from, what to categorize, the taxonomy, and photos that were taken down."""

    labelled: _Source
    new: _Source
    taxonomy: Path
    removed: Path | None


def demo(settings: Demo) -> None:
    """Draw samples where needed, train, promote, categorize, screen, describe, show."""
    output, today = settings.output, date.today().isoformat()
    rows = _check_inputs(settings)
    start_afresh(output)
    own_labels = settings.listings is not None
    steps = Steps(_JOBS + 2 * (not own_labels), output / "demo.log")
    steps.console.print(
        "From photos to categories: learn from labelled listings, categorize new ones",
        style="bold",
    )
    inputs = _own_inputs(settings, rows, steps) if own_labels else _sample_inputs(settings, steps)
    tracking_uri = settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    tracking_uri = tracking_uri or f"sqlite:///{(output / 'mlflow.db').resolve()}"
    tracking = ["--tracking-uri", tracking_uri]
    embeddings = ["--embeddings", str(output / "embeddings")]

    steps.run(
        "List the labelled photos in a manifest",
        build_manifest.main,
        _manifest(inputs.labelled, output / "labelled", today),
        tracking,
    )
    report = output / "train_head.json"
    steps.run(
        "Train a categorizer",
        train_head.main,
        ["--manifest", str(output / "labelled"), "--taxonomy", str(inputs.taxonomy)],
        ["--backbone", settings.backbone, "--registered-name", NAME, *embeddings],
        [] if own_labels else _FOR_DRAWINGS,
        ["--target-precision", str(settings.target_precision), "--report", str(report), *tracking],
        summary=lambda: _trained(_read(report)),
    )
    version = _read(report)["version"]
    steps.run(
        "Make it the champion",
        promote_challenger.main,
        # Its few listings are to learn from and to categorize; none is left to evaluate on.
        ["--model-name", NAME, "--version", version, "--without-evaluation", *tracking],
        summary=lambda: f"models:/{NAME}@champion is version {version}",
    )
    steps.run(
        "List the new photos in a manifest",
        build_manifest.main,
        _manifest(inputs.new, output / "manifest", today),
        tracking,
    )
    published = output / "categorize_listings.json"
    steps.run(
        "Categorize the new listings",
        categorize_listings.main,
        ["--manifest", str(output / "manifest"), "--ds", today],
        ["--model", f"models:/{NAME}@champion", "--output", str(output / "categories")],
        # What the next two jobs need of the photos, so that each is read once.
        [flag for signal in _SIGNALS for flag in ("--signals", signal)],
        [*embeddings, "--report", str(published), *tracking],
        summary=lambda: "{listings} listings with {photos} photos".format_map(_read(published)),
    )
    day = ["--manifest", str(output / "manifest"), "--ds", today, *embeddings, *tracking]
    known = _list_removed(inputs.removed, output, steps, tracking)
    screened = output / "screen_listings.json"
    steps.run(
        "Screen them",
        screen_listings.main,
        [*day, "--backbone", f"models:/{NAME}@champion", "--output", str(output / "screening")],
        [*known, "--page", str(output / "screening.html"), "--report", str(screened)],
        summary=lambda: "{block} to block, {review} to review, {allow} allowed".format_map(
            _read(screened)
        ),
    )
    described = output / "describe_listings.json"
    steps.run(
        "Describe their photos",
        describe_listings.main,
        [*day, "--output", str(output / "descriptions")],
        [flag for locale in _LOCALES for flag in ("--locale", locale)],
        [] if own_labels else _names(inputs.taxonomy),
        ["--page", str(output / "descriptions.html"), "--report", str(described)],
        summary=lambda: "{texts} texts in {locales}".format_map(
            {**_read(described), "locales": ", ".join(_LOCALES)}
        ),
    )
    figures = _read(published)
    figures["target_precision"] = settings.target_precision
    figures["demo_seconds"] = monotonic() - steps.started
    show_result(steps.console, output, figures, read_taxonomy(inputs.taxonomy), tracking_uri)


def _names(taxonomy: Path) -> list[str]:
    """The flags for the sample taxonomy's translations."""
    files = sorted(taxonomy.parent.glob(f"{taxonomy.stem}_*.csv"))
    return [part for file in files for part in ("--names", f"{file.stem[-2:]}={file}")]


def _list_removed(
    removed: Path | None, output: Path, steps: Steps, tracking: list[str]
) -> list[str]:
    """List photos that must not come back; returns the flags for the screening."""
    if removed is None or not any(removed.iterdir()):
        return []
    known = output / "known_photos.parquet"
    steps.run(
        "List a photo that was taken down before",
        list_known_photos.main,
        ["--photos", str(removed), "--rule", "taken down", "--action", "block"],
        ["--output", str(known), *tracking],
    )
    return ["--known-photos", str(known)]


def _check_inputs(settings: Demo) -> list[Row]:
    """Refuse missing and unusable inputs, before anything of an earlier demo is removed.

    Returns:
        The rows of a person's photos; none without.
    """
    if settings.photos is None:
        return []
    given = {name: getattr(settings, name) for name in ("photos", "listings", "taxonomy")}
    for name, path in given.items():
        if path is not None and path.resolve().is_relative_to(settings.output.resolve()):
            raise SettingsError(
                f"--{name} {path}: is in --output, which the demo empties; name another output"
            )
    if not settings.photos.is_dir():
        raise SettingsError(f"--photos {settings.photos}: no such folder")
    if settings.taxonomy is not None:
        read_taxonomy(settings.taxonomy)
    found = build_manifest.collect_photos(
        build_manifest.BuildManifest.model_validate(
            {
                "images": settings.photos,
                "listings": settings.listings,
                "output": settings.output,
                "ds": date.today(),
            }
        )
    )
    return found.rows


def start_afresh(output: Path) -> None:
    """Remove what an earlier demo left, and nothing else."""
    marker = output / ".demo"
    if output.exists() and any(output.iterdir()):
        if not marker.exists():
            raise SettingsError(
                f"--output {output}: is not empty and not an earlier demo's; name another folder"
            )
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _own_inputs(settings: Demo, rows: Iterable[Row], steps: Steps) -> _Inputs:
    """Photos and labels of the person's own."""
    assert settings.photos is not None  # noqa: S101 - checked by the settings
    assert settings.listings is not None  # noqa: S101
    assert settings.taxonomy is not None  # noqa: S101
    labelled = _Source(settings.photos, settings.listings, [])
    splits = {row["split"] for row in rows} - {"train", "val", None}
    if not splits:
        steps.console.print("No split but train and val in the table: these are categorized too.")
    new = labelled._replace(splits=sorted(splits))
    return _Inputs(labelled, new, settings.taxonomy, None)


def _sample_inputs(settings: Demo, steps: Steps) -> _Inputs:
    """Drawn samples to learn from, and to categorize unless the person has photos."""
    with steps.step("Draw sample listings") as step:
        samples = draw_sample_listings(
            settings.output / "samples",
            settings.samples,
            progress=lambda done, total: step.progress(f"{done} of {total} listings"),
            processes=min(os.cpu_count() or 1, settings.samples // 24 or 1),
        )
        step.summarize(
            f"{samples.listings} listings of {samples.kinds} kinds with {samples.photos} photos, "
            f"{samples.broken} of them broken on purpose"
        )
    labelled = _Source(samples.images.parent, samples.listings_csv, ["train", "val"])
    if settings.photos is None:
        new = labelled._replace(splits=["new"])
        return _Inputs(labelled, new, samples.taxonomy_csv, samples.removed)
    steps.console.print(
        "Without --listings there are no labels to learn from: your photos get categories of the "
        "drawn samples, which shows that the jobs run and nothing more."
    )
    own = _Source(settings.photos, None, [])
    return _Inputs(labelled, own, samples.taxonomy_csv, samples.removed)


def _manifest(source: _Source, output: Path, ds: str) -> list[str]:
    arguments = ["--images", str(source.images), "--output", str(output), "--ds", ds]
    if source.listings is not None:
        arguments += ["--listings", str(source.listings)]
    for split in source.splits:
        arguments += ["--split", split]
    return arguments


def _read(report: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return figures


def _trained(figures: dict[str, Any]) -> str:
    return (
        f"version {figures['version']}: {figures['backbone']}; "
        f"{figures['classes']} classes, {figures['train_photos']} photos to learn from and "
        f"{figures['val_photos']} to calibrate on"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns its exit code."""
    return run_job(Demo, demo, argv)


if __name__ == "__main__":
    sys.argv[0] = "python -m demo"  # In --help and errors, rather than this file's name.
    sys.exit(main())
