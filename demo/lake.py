"""From table to table: the daily job on an S3 server with a catalog of Iceberg's.

    python -m demo.lake --output lake-output

Starts the server, trains a small model on drawn samples, writes a manifest table, categorizes it
twice, rolls the categories back to the first run, and reads them with PyIceberg.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import Field
from pyspark.sql import SparkSession

from demo.__main__ import start_afresh
from demo.samples import draw_sample_listings
from demo.steps import Steps
from jobs import build_manifest, categorize_listings, check_categories, train_head
from jobs.command.settings import JobSettings, run_job
from schemas.categories import Decision
from schemas.errors import DataContractError
from scripts.object_store import ROOT, ObjectStore, object_store

_CATEGORIES = "table:lake.shop.categories"
_READER = Path(__file__).with_name("read_lake.py")
_STEPS = 8


class LakeDemo(JobSettings):
    """Categorize sample listings from table to table, on an S3 server of this machine."""

    output: Path = Field(Path("lake-output"), description="folder for all that is written")
    samples: int = Field(240, ge=12, description="sample listings to draw")


def lake(settings: LakeDemo) -> None:
    """Start the server, write the manifest, categorize twice, roll back, read."""
    output, today = settings.output, date.today().isoformat()
    start_afresh(output)
    steps = Steps(_STEPS, output / "demo.log")
    steps.console.print("From table to table: Iceberg on an S3 server", style="bold")
    tracking = ["--tracking-uri", f"sqlite:///{(output / 'mlflow.db').resolve()}"]
    with steps.step("Draw sample listings") as step:
        samples = draw_sample_listings(output / "samples", settings.samples)
        step.summarize(f"{samples.listings} listings with {samples.photos} photos")
    listed = ["--images", str(samples.images.parent), "--listings", str(samples.listings_csv)]
    with object_store(output / "object-store") as store:
        _use(store)
        steps.run(
            "List the labelled photos in a folder",
            build_manifest.main,
            [*listed, "--split", "train", "--split", "val", "--ds", today],
            ["--output", str(output / "labelled"), *tracking],
        )
        embeddings = ["--embeddings", "table:lake.shop.embeddings", "--scratch", store.scratch]
        steps.run(
            "Train a categorizer; its embeddings go to a table",
            train_head.main,
            ["--manifest", str(output / "labelled"), "--taxonomy", str(samples.taxonomy_csv)],
            ["--output", str(output / "model"), "--target-precision", "0.6"],
            [*embeddings, *tracking],
        )
        steps.run(
            "List the new photos in a table",
            build_manifest.main,
            [*listed, "--split", "new", "--ds", today, "--embed-bytes"],
            ["--output", "table:lake.shop.manifest", *tracking],
        )
        day = ["--manifest", "table:lake.shop.manifest", "--ds", today, "--output", _CATEGORIES]
        model = ["--model", str(output / "model"), *embeddings, *tracking]
        first = _categorize(steps, "first", output, [*day, *model])
        second = _categorize(steps, "second", output, [*day, *model])
        steps.run("Check what is published", check_categories.main, [*day, *tracking])
        with steps.step("Roll back to the first run, and read with PyIceberg") as step:
            before = _read_elsewhere(store)
            _roll_back(first["published"].rpartition(" ")[2])
            after = _read_elsewhere(store)
            step.summarize(f"snapshot {before['current']} to {after['current']}")
        for seen, report in ((before, second), (after, first)):
            if {row[0] for row in seen["rows"]} != {report["run_id"]}:
                raise DataContractError(
                    f"PyIceberg sees other rows than those of {report['run_id']}"
                )
        _show(steps, before, after)


def _categorize(
    steps: Steps, number: str, output: Path, arguments: Sequence[str]
) -> dict[str, Any]:
    """Run the daily job; returns its report."""
    path = output / f"{number}.json"

    def report() -> dict[str, Any]:
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return figures

    steps.run(
        f"Categorize the new listings, the {number} time",
        categorize_listings.main,
        [*arguments, "--report", str(path)],
        summary=lambda: (
            "{listings} listings, {photos_embedded} photos embedded; {published}".format_map(
                report()
            )
        ),
    )
    return report()


def _use(store: ObjectStore) -> None:
    """Have the session of the jobs started with the store's catalog."""
    settings = (f"--conf {name}={value}" for name, value in store.spark_settings().items())
    os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join([*settings, "pyspark-shell"])


def _roll_back(snapshot: str) -> None:
    spark = SparkSession.getActiveSession()
    assert spark is not None  # noqa: S101 - the jobs started it
    spark.sql(f"CALL lake.system.rollback_to_snapshot('shop.categories', {snapshot})").collect()


def _read_elsewhere(store: ObjectStore) -> dict[str, Any]:
    """What another engine sees of the categories."""
    asked = {"settings": store.pyiceberg_settings(), "table": "shop.categories"}
    done = subprocess.run(  # noqa: S603
        [ROOT / ".venv-lake" / "bin" / "python", _READER],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DataContractError(f"PyIceberg cannot read the table: {done.stderr[-2000:]}")
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def _show(steps: Steps, before: dict[str, Any], after: dict[str, Any]) -> None:
    """What PyIceberg saw, and how to look for oneself."""
    steps.console.print("What PyIceberg reads", style="bold")
    for name, seen in (("after the second run", before), ("rolled back", after)):
        counts = Counter({decision: count for _, decision, count in seen["rows"]})
        found = ", ".join(f"{counts[d.value]} {d.value}" for d in Decision)
        steps.console.print(f"  {name}: snapshot {seen['current']}: {found}")
        steps.console.print(f"    of run {seen['rows'][0][0]}")
    steps.console.print(f"The table has {len(after['snapshots'])} snapshots.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns its exit code."""
    return run_job(LakeDemo, lake, argv)


if __name__ == "__main__":
    sys.argv[0] = "python -m demo.lake"  # In --help and errors, rather than this file's name.
    sys.exit(main())
