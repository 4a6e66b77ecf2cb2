"""The demo: drawn samples in a process of its own, a person's photos, and bad arguments."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from PIL import Image

from demo.__main__ import main
from demo.samples import draw_sample_listings
from schemas.categories import check_categories
from tests.support.paths import ROOT
from tests.support.tracking_database import new_database

pytestmark = [pytest.mark.spark, pytest.mark.slow]
LABELS = ("listing_id", "category_id")


def run_as_process(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run in a folder of its own, so that a file written elsewhere by mistake is seen there."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # A session of these tests would be taken for that of a spark-submit.
    for name in ("MLFLOW_TRACKING_URI", "PYSPARK_GATEWAY_PORT"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "demo", *flags]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Runs the demo in this process; the JVM's working directory is another."""
    monkeypatch.chdir(tmp_path)

    def run(*flags: str) -> Ended:
        # MLflow sets it to the database of the demo before.
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        capsys.readouterr()
        return Ended(main(flags), *capsys.readouterr())

    return run


def published(output: Path) -> list[dict[str, object]]:
    ((partition),) = [p for p in (output / "categories").iterdir() if p.name.startswith("ds=")]
    table = pads.dataset(partition).to_table()
    check_categories(table, str(partition))
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


def test_samples_and_a_rerun(tmp_path: Path, demo: Callable[..., Ended]) -> None:
    first = run_as_process(tmp_path, "--samples", "48", "--target-precision", "0.1")
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
    said = f"{len(assigned)} assigned, {sum(right)} of them right"
    assert f"listings: {said}" in first.stdout
    parts = ("contact_sheet.png", "photos a second", "MLflow run", figures["run_id"], "taught by")
    for part in parts:
        assert part in first.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo-output"]

    # A rerun starts afresh; somebody else's folder is left alone.
    (output / ".demo").unlink()
    refused = demo("--samples", "48")
    assert refused.returncode == 2
    assert "not an earlier demo's" in refused.stderr.splitlines()[-1]
    assert published(output) == rows


@pytest.mark.usefixtures("spark")
def test_own_photos_with_labels_and_without(tmp_path: Path, demo: Callable[..., Ended]) -> None:
    """With a smaller backbone, and a database made before, which spare seconds of a run."""

    def cheap(name: str) -> tuple[str, ...]:
        database = new_database(tmp_path, f"{name}.db")
        return "--backbone", "timm:regnety_002", "--tracking-uri", database

    samples = draw_sample_listings(tmp_path / "mine", 24, seed=5)
    labelled = demo(
        *cheap("labelled"),
        *("--photos", str(tmp_path / "mine"), "--listings", str(samples.listings_csv)),
        *("--taxonomy", str(samples.taxonomy_csv), "--output", str(tmp_path / "labelled")),
    )
    assert labelled.returncode == 0, labelled.stderr
    new = {row["listing_id"] for row in published(tmp_path / "labelled")}
    manifest = pq.read_table(next((tmp_path / "labelled" / "manifest").glob("ds=*")))
    assert new == set(manifest.column("listing_id").to_pylist())

    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(samples.images.glob("*.jpg"))[:5]:
        shutil.copy(path, few)
    flags = ("--photos", str(few), "--samples", "24", "--output", str(tmp_path / "unlabelled"))
    unlabelled = demo(*cheap("unlabelled"), *flags)
    assert unlabelled.returncode == 0, unlabelled.stderr
    assert "no labels to learn from" in unlabelled.stdout
    assert "of them right" not in unlabelled.stdout
    assert {row["listing_id"] for row in published(tmp_path / "unlabelled")} == {
        path.name for path in few.iterdir()
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--listings", "x.csv"], "go together"),
        (["--listings", "x.csv", "--taxonomy", "t.csv"], "--listings needs --photos"),
        (["--photos", "no"], "--photos no: no such folder"),
        (["--photos", "none"], "none: no photo"),
        (["--photos", "p", "--listings", "no.csv", "--taxonomy", "t.csv"], "no.csv: No such file"),
        (["--photos", "p", "--listings", "t.csv", "--taxonomy", "t.csv"], "t.csv: no column"),
        (["--photos", "p", "--listings", "x.csv", "--taxonomy", "no.csv"], "no.csv"),
        (["--photos", "p", "--listings", "x.csv", "--taxonomy", "x.csv"], "x.csv"),
        (["--photos", "demo-output"], "--photos demo-output: is in --output"),
        (["--samples", "many"], "--samples"),
    ],
)
def test_bad_arguments_get_one_line_and_leave_an_earlier_demo_alone(
    demo: Callable[..., Ended], tmp_path: Path, flags: list[str], message: str
) -> None:
    for name in ("p", "none", "demo-output"):
        (tmp_path / name).mkdir()
    (tmp_path / "p" / "a.jpg").touch()
    (tmp_path / "t.csv").write_text("category_id,category_path\na,A\n", encoding="utf-8")
    (tmp_path / "x.csv").write_text("listing_id,path\n1,a.jpg\n", encoding="utf-8")
    earlier = [tmp_path / "demo-output" / name for name in (".demo", "mlflow.db", "photo.jpg")]
    for file in earlier:
        file.touch()
    result = demo(*flags)
    assert result.returncode in {2, 3}
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert all(file.exists() for file in earlier)
