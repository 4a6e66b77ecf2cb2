"""Both DAGs from table to table: the manifest, the labels, the categories and the embeddings."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyspark
import pytest
from mlflow import MlflowClient

from seer_model.tracking import registration, registry, runs
from tests.spark.tables.conftest import Lake, iceberg_alone
from tests.support.airflow_instance import BIN
from tests.support.manifest_rows import DS, DrawPhoto, row
from tests.support.marketplace import COLOURS, MODEL, TAXONOMY
from tests.support.paths import ROOT
from tests.support.spark_python import TABLE_FORMATS
from tests.support.standalone_cluster import clean_environment
from tests.support.tracking_database import new_database

pytestmark = [pytest.mark.airflow, pytest.mark.spark, pytest.mark.lake, pytest.mark.slow]

SPLITS = {"train": 6, "val": 4, "test": 4}
RunDag = Callable[..., str]


@pytest.fixture
def database(tmp_path: Path, bundle_folder: Path) -> str:
    """MLflow's, with a champion."""
    uri = new_database(tmp_path)
    runs.connect(uri)
    with runs.tracked_run("train_head", {}):
        version = registration.register_bundle(bundle_folder, MODEL)
    registry.move_alias(MODEL, "champion", version)
    return uri


@pytest.fixture
def run_dag(lake: Lake, database: str, tmp_path: Path) -> RunDag:
    """Runs all tasks of a DAG in one process of Airflow; returns what it printed."""
    package = tmp_path / "seer-categories.zip"
    script = ROOT / "scripts" / "package_zip.py"
    subprocess.run([sys.executable, script, "--root", ROOT, "--output", package], check=True)
    (tmp_path / "taxonomy.csv").write_text(TAXONOMY, encoding="utf-8")
    catalog = {
        name: lake.spark.conf.get(name)
        for name in (f"spark.sql.catalog.lake{key}" for key in ("", ".type", ".warehouse"))
    }
    settings = {
        "PY_FILES": package,
        "REPORTS": tmp_path / "reports",
        "SCRATCH": tmp_path / "scratch",
        "MANIFEST": lake.flag("manifest"),
        "LABELLED": lake.flag("other"),
        "OUTPUT": lake.flag("categories"),
        "EMBEDDINGS": lake.flag("embeddings"),
        "TAXONOMY": tmp_path / "taxonomy.csv",
        "BACKBONE": "timm:regnety_002",
        "TRACKING_URI": database,
    }
    environment = clean_environment()
    defaults = {**TABLE_FORMATS, **catalog, "spark.log.level": "WARN"}
    (tmp_path / "spark-defaults.conf").write_text(
        "".join(f"{name} {value}\n" for name, value in defaults.items()), encoding="utf-8"
    )
    spark = Path(pyspark.__file__).parent / "bin"
    environment |= {
        "PATH": f"{BIN}{os.pathsep}{spark}{os.pathsep}{os.environ['PATH']}",
        "SPARK_CONF_DIR": str(tmp_path),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "airflow_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[1]"}),
        **{f"SEER_AIRFLOW_{name}": str(value) for name, value in settings.items()},
    }

    def airflow(*command: str) -> str:
        done = subprocess.run(
            [BIN / "airflow", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    airflow("db", "migrate")
    return lambda dag, **conf: airflow("dags", "test", dag, "--conf", json.dumps(conf))


@iceberg_alone
def test_a_day_and_a_week(
    lake: Lake, run_dag: RunDag, database: str, draw_photo: DrawPhoto
) -> None:
    lake.write_manifest([row(name, image_bytes=draw_photo(name, 1)) for name in COLOURS])
    run_dag("categorize_daily", ds=DS)
    assert lake.categories()["listing_id"].to_pylist() == sorted(COLOURS)
    assert lake.sql("SELECT count(*) FROM {embeddings}") == [(len(COLOURS),)]

    labelled = [
        row(
            f"{split} {colour} {i}",
            image_bytes=draw_photo(colour, 100 * place + i),
            category_id=colour,
            split=split,
        )
        for place, (split, count) in enumerate(SPLITS.items())
        for colour in COLOURS
        for i in range(count)
    ]
    lake.write_manifest(labelled, name="other")
    said = run_dag("refresh_weekly")
    runs.connect(database)
    (newest, *_) = MlflowClient().search_model_versions(f"name = '{MODEL}'")
    assert newest.version == 2, said
    assert "evaluation_run" in newest.tags, said
    assert lake.sql("SELECT count(DISTINCT backbone_digest) FROM {embeddings}") == [(2,)]
