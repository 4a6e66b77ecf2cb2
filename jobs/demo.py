"""The whole way once: sample listings, or your photos, to categories and a contact sheet.

    python -m jobs.demo --output demo-output
    python -m jobs.demo --photos photos --listings listings.csv --taxonomy taxonomy.csv

Each step is a job that is run here as it would be from a shell; its command is printed first.
"""

import csv
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from jobs import build_manifest, categorize_listings, promote_challenger, train_head
from jobs.demo_result import show_result
from jobs.samples import draw_sample_listings
from jobs.settings import JobSettings, run_job
from schemas.errors import SeerError, SettingsError
from schemas.taxonomy_readers import read_taxonomy
from seer_model import zoo

NAME = "listing-categorizer"

# Drawings are like no photo that the backbone has seen. Somebody's own photos may be many.
_FINETUNE = ["--finetune", "--finetune-size", "128", "--finetune-epochs", "16"]

_Main = Callable[[Sequence[str]], int]


class Demo(JobSettings):
    """Categorize sample listings, or your own photos, end to end on this machine."""

    photos: Path | None = Field(None, description="folder of your photos (default: drawn samples)")
    listings: Path | None = Field(
        None, description="CSV: listing_id, image_index, path[, category_id, split], with --photos"
    )
    taxonomy: Path | None = Field(None, description="taxonomy of the labels, with --listings")
    output: Path = Field(Path("demo-output"), description="folder for all that is written")
    backbone: str = Field(zoo.DEFAULT, description="what jobs.train_head takes")
    target_precision: float = Field(
        0.8, gt=0, lt=1, description="share of assigned listings that is to be right"
    )
    samples: int = Field(480, ge=12, description="sample listings to draw")

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.listings is None) != (self.taxonomy is None):
            raise ValueError("--listings and --taxonomy go together")
        if self.listings is not None and self.photos is None:
            raise ValueError("--listings needs --photos, the folder its paths lie in")
        return self


class _Source(NamedTuple):
    images: Path
    listings: Path | None
    splits: list[str]


class _JobFailed(SeerError):
    """A step that has said itself what was wrong."""

    def __init__(self, job: str, code: int) -> None:
        super().__init__(f"{job} ended with exit code {code}")
        self.exit_code = code


def demo(settings: Demo) -> None:
    """Draw, build manifests, train, promote, categorize, show."""
    output = settings.output
    _start_afresh(output)
    today = date.today().isoformat()
    tracking = settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    common = ["--tracking-uri", tracking or f"sqlite:///{(output / 'mlflow.db').resolve()}"]
    labelled, new, taxonomy = _sources(settings)
    embeddings = ["--embeddings", str(output / "embeddings")]

    _run(build_manifest.main, _manifest(labelled, output / "labelled", today), common)
    report = output / "train_head.json"
    _run(
        train_head.main,
        ["--manifest", str(output / "labelled"), "--taxonomy", str(taxonomy)],
        ["--backbone", settings.backbone, "--registered-name", NAME, *embeddings],
        [] if settings.listings else _FINETUNE,
        ["--target-precision", str(settings.target_precision), "--report", str(report), *common],
    )
    trained = json.loads(report.read_text(encoding="utf-8"))
    _run(
        promote_challenger.main,
        ["--model-name", NAME, "--version", trained["version"], *common],
    )
    _run(build_manifest.main, _manifest(new, output / "manifest", today), common)
    report = output / "categorize_listings.json"
    _run(
        categorize_listings.main,
        ["--manifest", str(output / "manifest"), "--ds", today],
        ["--model", f"models:/{NAME}@champion", "--output", str(output / "categories")],
        [*embeddings, "--report", str(report), *common],
    )
    figures: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    show_result(output, today, figures, read_taxonomy(taxonomy), common[1])


def _start_afresh(output: Path) -> None:
    """Remove what an earlier demo left, and nothing else."""
    marker = output / ".demo"
    if output.exists() and any(output.iterdir()):
        if not marker.exists():
            raise SettingsError(f"--output {output}: is not empty and not an earlier demo's")
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _sources(settings: Demo) -> tuple[_Source, _Source, Path]:
    """What to learn from, what to categorize, and the taxonomy."""
    if settings.photos is not None and settings.listings is not None:
        assert settings.taxonomy is not None  # noqa: S101 - the validator saw to it
        labelled = _Source(settings.photos, settings.listings, [])
        splits = _splits(settings.listings) - {"train", "val", ""}
        new = _Source(settings.photos, settings.listings, sorted(splits))
        if not splits:
            _say("No split but train and val in the table: these listings are categorized too.")
        return labelled, new, settings.taxonomy
    samples = draw_sample_listings(settings.output / "samples", settings.samples, progress=_drawn)
    _say(
        f"Drew {samples.listings} listings of {samples.kinds} kinds with {samples.photos} photos, "
        f"{samples.broken} of them broken on purpose: {samples.images}"
    )
    labelled = _Source(samples.images.parent, samples.listings_csv, ["train", "val"])
    if settings.photos is None:
        return labelled, labelled._replace(splits=["new"]), samples.taxonomy_csv
    _say(
        "Without --listings there are no labels to learn from: your photos get categories of the "
        "drawn samples, which show that the job runs and nothing more."
    )
    return labelled, _Source(settings.photos, None, []), samples.taxonomy_csv


def _splits(listings: Path) -> set[str]:
    try:
        with listings.open(encoding="utf-8-sig", newline="") as file:
            return {row.get("split") or "" for row in csv.DictReader(file)}
    except OSError as error:
        raise SettingsError(f"--listings {listings}: {error.strerror}") from error


def _manifest(source: _Source, output: Path, ds: str) -> list[str]:
    arguments = ["--images", str(source.images), "--output", str(output), "--ds", ds]
    if source.listings is not None:
        arguments += ["--listings", str(source.listings)]
    for split in source.splits:
        arguments += ["--split", split]
    return arguments


def _run(job: _Main, *parts: Sequence[str]) -> None:
    arguments = [argument for part in parts for argument in part]
    _say(f"\n$ python -m {job.__module__} {shlex.join(arguments)}")
    code = job(arguments)
    if code:
        raise _JobFailed(job.__module__, code)


def _drawn(done: int, total: int) -> None:
    if done % 50 == 0 or done == total:
        _say(f"Drawing sample listings: {done} of {total}")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns its exit code."""
    return run_job(Demo, demo, argv)


if __name__ == "__main__":
    sys.exit(main())
