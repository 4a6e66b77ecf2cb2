"""The demo, from drawn samples and from a person's own photos, as a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.samples import draw_sample_listings
from schemas.categories import check_categories

pytestmark = [pytest.mark.spark, pytest.mark.slow]
LABELS = ("listing_id", "category_id")
ROOT = Path(__file__).parents[2]


def demo(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Runs in a folder of its own, so that whatever is written by accident is seen there."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "jobs.demo", *flags]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def published(output: Path) -> list[dict[str, object]]:
    ((partition),) = [p for p in (output / "categories").iterdir() if p.name.startswith("ds=")]
    table = pads.dataset(partition).to_table()
    check_categories(table, str(partition))
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


def test_samples_and_a_rerun(tmp_path: Path) -> None:
    first = demo(tmp_path, "--samples", "48", "--target-precision", "0.1")
    assert first.returncode == 0, first.stderr
    output = tmp_path / "demo-output"
    figures = json.loads((output / "categorize_listings.json").read_text(encoding="utf-8"))
    manifest = pads.dataset(next((output / "manifest").glob("ds=*"))).to_table()
    listings = set(manifest.column("listing_id").to_pylist())
    rows = published(output)
    assert {row["listing_id"] for row in rows} == listings
    assert len(rows) == figures["listings"] == len(listings)
    assert figures["rejected"] >= 1
    with Image.open(output / "contact_sheet.png") as sheet:
        assert min(sheet.size) > 200
    labels = dict(zip(*(manifest.column(c).to_pylist() for c in LABELS), strict=True))
    assigned = [row for row in rows if row["decision"] == "assigned"]
    # A drawn sample's category begins with those above it.
    right = [f"{labels[r['listing_id']]}/".startswith(f"{r['category_id']}/") for r in assigned]
    said = f"{len(assigned)} assigned, {sum(right)} of them rightly"
    assert f"listings: {said}" in first.stdout
    parts = ("contact_sheet.png", "photos a second", "MLflow run", figures["run_id"], "fine-tuned")
    for part in parts:
        assert part in first.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo-output"]

    # A rerun starts afresh; somebody else's folder is left alone.
    (output / ".demo").unlink()
    refused = demo(tmp_path, "--samples", "48")
    assert refused.returncode == 2
    assert "not an earlier demo's" in refused.stderr.splitlines()[-1]
    assert published(output) == rows


def test_own_photos_with_labels_and_without(tmp_path: Path) -> None:
    samples = draw_sample_listings(tmp_path / "mine", 24, seed=5)
    labelled = demo(
        tmp_path,
        *("--photos", str(tmp_path / "mine"), "--listings", str(samples.listings_csv)),
        *("--taxonomy", str(samples.taxonomy_csv), "--output", "labelled"),
    )
    assert labelled.returncode == 0, labelled.stderr
    assert "fine-tuned" not in labelled.stdout
    new = {row["listing_id"] for row in published(tmp_path / "labelled")}
    manifest = pq.read_table(next((tmp_path / "labelled" / "manifest").glob("ds=*")))
    assert new == set(manifest.column("listing_id").to_pylist())

    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(samples.images.glob("*.jpg"))[:5]:
        shutil.copy(path, few)
    flags = ("--photos", str(few), "--samples", "48", "--output", "unlabelled")
    unlabelled = demo(tmp_path, *flags)
    assert unlabelled.returncode == 0, unlabelled.stderr
    assert "no labels to learn from" in unlabelled.stdout
    assert "rightly" not in unlabelled.stdout
    assert {row["listing_id"] for row in published(tmp_path / "unlabelled")} == {
        path.name for path in few.iterdir()
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--listings", "x.csv"], "go together"),
        (["--listings", "x.csv", "--taxonomy", "t.csv"], "--listings needs --photos"),
        (["--photos", "p", "--listings", "x.csv", "--taxonomy", "t.csv"], "x.csv"),
        (["--samples", "many"], "--samples"),
    ],
)
def test_bad_arguments_get_one_line(tmp_path: Path, flags: list[str], message: str) -> None:
    result = demo(tmp_path, *flags)
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
