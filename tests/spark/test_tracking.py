"""The daily job's run in MLflow: code, data, model, figures, and the drift between days."""

import json
import logging
import subprocess
from pathlib import Path
from typing import Any

import mlflow
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from pyspark.sql import SparkSession

from schemas.categories import Decision
from seer_model import __version__
from seer_model.tracking import registration, runs
from tests.support.manifest_rows import DS, Categorize, DrawPhoto, Rows, WriteManifest, row
from tests.support.paths import ROOT
from tests.support.tracking_database import new_database

pytestmark = pytest.mark.spark

DAYS = ("2026-11-22", "2026-11-23", "2026-11-24", DS)
FIRST, ALIKE, OTHER, LAST = DAYS


@pytest.fixture(scope="module")
def manifest(
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Two days with about as many photos of each colour, and two with mostly one colour."""
    folder = tmp_path_factory.mktemp("tracking") / "manifest"

    def listings(red: int, blue: int, seed: int) -> Rows:
        photos = [draw_photo("warm/red", seed + i, spread=5) for i in range(red)]
        photos += [draw_photo("cold/blue", seed + i, spread=5) for i in range(blue)]
        return [row(f"listing {i}", image_bytes=photo) for i, photo in enumerate(photos)]

    for number, (day, red, blue) in enumerate(
        ((FIRST, 40, 40), (ALIKE, 41, 39), (OTHER, 5, 75), (LAST, 75, 5))
    ):
        rows = [*listings(red, blue, 1000 * number), row("gone", image_uri="/nowhere/photo.jpg")]
        write_manifest(folder, rows, day)
    return folder


@pytest.fixture(scope="module")
def output(manifest: Path) -> Path:
    return manifest.parent / "categories"


@pytest.fixture(scope="module")
def version(bundle_folder: Path, tracking_uri: str) -> str:
    runs.connect(tracking_uri)
    with runs.tracked_run("train_head", {}):
        return registration.register_bundle(bundle_folder, "tracked")


@pytest.fixture(scope="module")
def reports(
    manifest: Path, output: Path, version: str, categorize: Categorize
) -> dict[str, dict[str, Any]]:
    """Of the first three days; the third was categorized by the registered version."""
    (output / "ds=yesterday").mkdir(parents=True)
    (output / "ds=2026-11-21").symlink_to("_runs/of nobody")
    (output / "ds=2026-12-24").mkdir()
    return {
        FIRST: categorize(manifest, output, "--ds", FIRST),
        ALIKE: categorize(manifest, output, "--ds", ALIKE),
        OTHER: categorize(manifest, output, "--ds", OTHER, "--model", f"models:/tracked/{version}"),
    }


def run_of(report: dict[str, Any]) -> Run:
    return MlflowClient().get_run(report["run_id"])


def artifact(report: dict[str, Any], name: str) -> str:
    path = mlflow.artifacts.download_artifacts(run_id=report["run_id"], artifact_path=name)
    return Path(path).read_text(encoding="utf-8")


def git(*command: str) -> str:
    command = ("git", "--no-optional-locks", "-C", str(ROOT), *command)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_run_names_parameters_and_code(
    reports: dict[str, dict[str, Any]], manifest: Path, output: Path
) -> None:
    run = run_of(reports[FIRST])
    assert (run.info.run_name, run.info.status) == (f"categorize_listings {FIRST}", "FINISHED")
    assert run.data.params["manifest"] == str(manifest)
    assert (run.data.params["ds"], run.data.params["output"]) == (FIRST, str(output))
    assert "tracking_uri" not in run.data.params
    assert run.data.tags["job"] == "categorize_listings"
    assert run.data.tags["package_version"] == __version__
    if (ROOT / ".git").exists():
        assert run.data.tags["mlflow.source.git.commit"] == git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--", "jobs", "schemas", "seer_model")
        assert run.data.tags["mlflow.source.git.dirty"] == str(bool(changed)).lower()


def test_run_has_the_data(reports: dict[str, dict[str, Any]], manifest: Path) -> None:
    digests = set()
    for day, report in reports.items():
        (used,) = run_of(report).inputs.dataset_inputs
        assert used.dataset.name == f"{manifest}/ds={day}"
        assert json.loads(used.dataset.profile) == {"num_rows": 81}
        assert [(tag.key, tag.value) for tag in used.tags] == [
            ("mlflow.data.context", "categorize_listings")
        ]
        source = mlflow.data.get_source(used.dataset)
        assert source.to_dict() == {"path": f"{manifest}/ds={day}"}
        digests.add(used.dataset.digest)
    assert len(digests) == 3


def test_run_has_the_figures(reports: dict[str, dict[str, Any]]) -> None:
    report = reports[FIRST]
    metrics = run_of(report).data.metrics
    assert metrics["listings"] == report["listings"] == 81
    assert sum(metrics[name] for name in Decision) == 81
    assert metrics["reject_reasons.not_found"] == metrics["rejected"] == 1
    assert metrics["coverage"] == pytest.approx(report["assigned"] / 81, abs=1e-4)
    assert sum(report["assigned_by_level"].values()) == report["assigned"]
    assert report["assigned_by_level"]["level_2"] == report["assigned_exact"]
    assert metrics["assigned_by_level.level_1"] == report["assigned_by_level"]["level_1"]
    assert metrics["exact_coverage"] == pytest.approx(report["assigned_exact"] / 81, abs=1e-4)
    assert metrics["needs_review_rate"] == pytest.approx(report["needs_review"] / 81, abs=1e-4)
    assert metrics["rejected_rate"] == pytest.approx(1 / 81, abs=1e-4)
    assert metrics["photos_rejected_rate"] == pytest.approx(1 / 81, abs=1e-4)
    assert metrics["photos_per_second"] == report["photos_per_second"] > 0
    assert json.loads(artifact(report, "report.json")) == report
    assert "tracking_lost" not in report


def test_run_links_the_version_that_it_used(
    reports: dict[str, dict[str, Any]], version: str
) -> None:
    run = run_of(reports[OTHER])
    assert run.data.tags["model"] == f"models:/tracked/{version}"
    (used,) = run.inputs.model_inputs
    logged = MlflowClient().get_logged_model(used.model_id)
    registered = MlflowClient().get_model_version("tracked", version)
    assert registered.source == logged.model_uri
    assert logged.source_run_id == registered.run_id
    assert not run_of(reports[FIRST]).inputs.model_inputs


def test_the_first_day_has_nothing_to_compare_with(reports: dict[str, dict[str, Any]]) -> None:
    assert reports[FIRST]["drift"] == {"compared_with": None}
    names = {file.path for file in MlflowClient().list_artifacts(reports[FIRST]["run_id"])}
    assert names == {"report.json"}


def test_days_alike_do_not_drift(reports: dict[str, dict[str, Any]]) -> None:
    drift = reports[ALIKE]["drift"]
    assert (drift["compared_with"], drift["beyond"]) == (FIRST, [])
    for name in ("category", "top_level", "decision", "score"):
        assert drift[f"{name}_psi"] < 0.1, name
    assert "other_model" not in drift


def test_a_day_that_differs_drifts(
    reports: dict[str, dict[str, Any]], output: Path, version: str
) -> None:
    drift = reports[OTHER]["drift"]
    assert drift["compared_with"] == ALIKE
    assert {"category", "top_level"} <= set(drift["beyond"])
    # The new model may be the cause.
    assert drift["other_model"].startswith("colours version ")
    assert run_of(reports[OTHER]).info.run_name == f"categorize_listings {OTHER} tracked v{version}"
    metrics = run_of(reports[OTHER]).data.metrics
    assert metrics["drift.category_psi"] == drift["category_psi"] > 0.2
    assert {"drift.score_ks", "drift.decision_js_distance"} <= metrics.keys()

    found = json.loads(artifact(reports[OTHER], "drift.json"))
    for role, day in (("before", ALIKE), ("after", OTHER)):
        rows = pq.read_table(output / f"ds={day}").to_pylist()
        assert found[role]["listings"] == len(rows)
        for decision in Decision:
            count = sum(r["decision"] == decision for r in rows)
            assert found["decisions"][decision][role] == count
        for moved in found["moved_most"]:
            of_category = [r for r in rows if r["category_id"] == moved["category_id"]]
            assert moved[role] == len(of_category)
            for r in of_category:
                assert moved["path"] == " > ".join(r["category_path"])
        scores = [0] * 20
        for r in rows:
            if r["score"] is not None:
                scores[min(19, int(r["score"] * 20))] += 1
        assert found["scores"][role] == scores
    assert [day["ds"] for day in found["days"]] == [OTHER, ALIKE, FIRST]
    for day in found["days"]:
        reasons = pq.read_table(output / f"ds={day['ds']}")["review_reason"].to_pylist()
        assert day["listings"] == len(reasons)
        assert day["unfamiliar"] == reasons.count("unfamiliar")
    assert found["after"]["model"] == f"tracked version {version}"
    page = artifact(reports[OTHER], "drift.html")
    assert "The model changed" in page
    assert OTHER in page


@pytest.mark.usefixtures("reports")
def test_drift_beyond_the_bound_is_a_line_in_the_log(
    manifest: Path, output: Path, categorize: Categorize, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings(*flags: str) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            categorize(manifest, output, *flags)
        return [r.getMessage() for r in caplog.records if "drift" in r.getMessage()]

    (line,) = warnings()
    assert f"drift since {OTHER}: PSI above 0.2 of category " in line
    assert "the model changed: it was tracked version " in line
    assert warnings("--drift-warning", "50") == []


@pytest.mark.usefixtures("reports")
def test_a_comparison_that_fails_does_not_fail_the_job(
    manifest: Path, output: Path, categorize: Categorize, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = sorted((output / f"ds={OTHER}").resolve().glob("*.parquet"))
    contents = [file.read_bytes() for file in damaged]
    for file, content in zip(damaged, contents, strict=True):
        file.write_bytes(content[:4] + bytes(len(content) - 4))
    try:
        report = categorize(manifest, output)
    finally:
        for file, content in zip(damaged, contents, strict=True):
            file.write_bytes(content)
    assert list(report["drift"]) == ["problem"]
    assert "\n" not in report["drift"]["problem"]
    assert f"drift of {DS} not measured" in caplog.text
    assert pq.read_table(output / f"ds={DS}").num_rows == report["listings"]
    assert run_of(report).info.status == "FINISHED"


def test_a_failure_to_log_is_in_the_report(
    manifest: Path,
    categorize: Categorize,
    tracking_uri: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri = new_database(tmp_path)
    (tmp_path / "mlruns").write_text("no folder for artifacts", encoding="utf-8")
    try:
        report = categorize(manifest, tmp_path / "categories", "--tracking-uri", uri)
        run = run_of(report)
    finally:
        runs.connect(tracking_uri)
    assert report["tracking_lost"].startswith("report.json not logged: ")
    assert "report.json not logged" in caplog.text
    assert pq.read_table(tmp_path / "categories" / f"ds={DS}").num_rows == report["listings"]
    # What could be logged was.
    assert run.info.status == "FINISHED"
    assert run.data.metrics["listings"] == report["listings"]


def test_another_default_file_system_does_not_matter_to_folders_on_this_machine(
    spark: SparkSession, manifest: Path, categorize: Categorize, tmp_path: Path
) -> None:
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    before = hadoop.get("fs.defaultFS")
    hadoop.set("fs.defaultFS", "hdfs://127.0.0.1:1")
    try:
        # Only a manifest without a scheme is on the default file system.
        flags = ("--manifest", manifest.as_uri(), "--embeddings", str(tmp_path / "store"))
        report = categorize(manifest, tmp_path / "categories", *flags)
    finally:
        hadoop.set("fs.defaultFS", before)
    assert pq.read_table(tmp_path / "categories" / f"ds={DS}").num_rows == report["listings"]
