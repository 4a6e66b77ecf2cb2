"""What an OpenLineage backend is told of the daily job, and of the task that submitted a job."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from pyspark.sql import SparkSession

from jobs.command import lineage
from schemas.categories import CATEGORIES
from seer_model.tracking import registration, runs
from tests.support.lineage_backend import Backend, lineage_backend
from tests.support.manifest_rows import DS, Categorize, DrawPhoto, WriteManifest, row
from tests.support.paths import ROOT
from tests.support.spark_java import BIN
from tests.support.standalone_cluster import TIMEOUT_S, clean_environment

pytestmark = pytest.mark.spark


@pytest.fixture
def backend() -> Iterator[Backend]:
    with lineage_backend() as started, patch.dict(os.environ, OPENLINEAGE_URL=started.url):
        yield started


def test_the_daily_job(
    backend: Backend,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    bundle_folder: Path,
    categorize: Categorize,
    tracking_uri: str,
    tmp_path: Path,
) -> None:
    runs.connect(tracking_uri)
    with runs.tracked_run("train_head", {}):
        version = registration.register_bundle(bundle_folder, "told")
    manifest = tmp_path / "manifest"
    photos = [draw_photo("warm/red", i) for i in range(2)]
    rows = [row(name, i, image_bytes=photo) for name in "ab" for i, photo in enumerate(photos)]
    write_manifest(manifest, rows, DS)
    flags = ["--model", f"models:/told/{version}", "--embeddings", str(tmp_path / "embeddings")]
    report = categorize(manifest, tmp_path / "categories", *flags)

    assert [event["eventType"] for event in backend.events] == ["START", "COMPLETE"]
    event = backend.take("COMPLETE")
    read = {dataset["name"]: dataset for dataset in event["inputs"]}
    written = {dataset["name"]: dataset for dataset in event["outputs"]}
    names = [str(tmp_path / name) for name in ("manifest", "embeddings", "categories")]
    model = read.pop("models:/told")
    assert read.keys() == {*names[:2]}
    assert written.keys() == {*names[1:]}
    assert {dataset["namespace"] for dataset in (*read.values(), *written.values())} == {"file"}
    assert model["namespace"] == tracking_uri
    assert model["facets"]["version"]["datasetVersion"] == version
    assert read[names[0]]["inputFacets"]["inputStatistics"]["rowCount"] == 4
    figures = [written[name]["outputFacets"]["outputStatistics"]["rowCount"] for name in names[1:]]
    assert figures == [report["photos_embedded"], report["listings"]] == [4, 2]
    fields = [field["name"] for field in written[names[2]]["facets"]["schema"]["fields"]]
    assert fields == CATEGORIES.names


def test_names_are_those_of_spark(spark: SparkSession) -> None:
    files = spark.sparkContext._jsc.hadoopConfiguration()  # type: ignore[attr-defined]
    before = files.get("fs.defaultFS")
    catalog = "spark.sql.catalog.lake.uri"
    spark.conf.set(catalog, "http://me:secret@127.0.0.1:8181")
    try:
        files.set("fs.defaultFS", "hdfs://127.0.0.1:8020")
        assert lineage._name("/data/manifest/") == ("hdfs://127.0.0.1:8020", "/data/manifest")
        assert lineage._name(Path("/data/manifest")) == ("file", "/data/manifest")
        found = lineage._name("table:lake.shop.categories")
        assert found == ("http://127.0.0.1:8181", "shop.categories")
        assert lineage._name("table:other.shop.categories") == ("other", "shop.categories")
    finally:
        files.set("fs.defaultFS", before)
        spark.conf.unset(catalog)


def test_the_task_that_submitted_a_job(
    backend: Backend, draw_photo: DrawPhoto, tracking_uri: str, tmp_path: Path
) -> None:
    """Airflow's provider gives spark-submit these properties."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "shoe.jpg").write_bytes(draw_photo("warm/red"))
    task, dag_run = "018f4f5e-7d1c-7e6a-9d4d-0c5b5d3c2b1a", "018f4f5e-0000-7e6a-9d4d-0c5b5d3c2b1a"
    properties = {
        "parentJobNamespace": "shop",
        "parentJobName": "categorize_daily.build_manifest",
        "parentRunId": task,
        "rootParentJobNamespace": "shop",
        "rootParentJobName": "categorize_daily",
        "rootParentRunId": dag_run,
    }
    given = [f"--conf=spark.openlineage.{name}={value}" for name, value in properties.items()]
    flags = ["--images", "images", "--output", "manifest", "--ds", DS]
    done = subprocess.run(
        [BIN / "spark-submit", *given, ROOT / "jobs" / "build_manifest.py", *flags],
        cwd=tmp_path,
        env=clean_environment()
        | {"OPENLINEAGE_URL": backend.url, "MLFLOW_TRACKING_URI": tracking_uri}
        | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for state in ("START", "COMPLETE"):
        parent = backend.take(state)["run"]["facets"]["parent"]
        assert parent["run"]["runId"] == task
        assert parent["job"]["namespace"] == "shop"
        assert parent["job"]["name"] == "categorize_daily.build_manifest"
        assert parent["root"]["run"]["runId"] == dag_run
        assert parent["root"]["job"]["name"] == "categorize_daily"
    assert backend.take("COMPLETE")["outputs"][0]["name"] == str(tmp_path / "manifest")
