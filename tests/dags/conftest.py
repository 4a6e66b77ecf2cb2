"""An Airflow that submits to a local Spark, with listings of several days and a champion."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyspark
import pytest

from scripts.local_postgres import local_postgres
from seer_model.categorizer.bundle import load_bundle, save_bundle
from seer_model.linear_head import LinearHead
from tests.spark.conftest import bundle_folder, draw_photo, write_manifest
from tests.support.airflow_instance import BIN, Airflow
from tests.support.marketplace import Marketplace
from tests.support.paths import ROOT
from tests.support.standalone_cluster import clean_environment

__all__ = ["bundle_folder", "draw_photo", "write_manifest"]

GATES = ROOT / "seer_model" / "evaluation" / "gates.toml"


@pytest.fixture(scope="package")
def night() -> datetime:
    """When the nightly run is due."""
    return datetime.now(UTC) + timedelta(minutes=2)


@pytest.fixture(scope="package")
def marketplace(
    tmp_path_factory: pytest.TempPathFactory,
    write_manifest: Callable[..., Path],
    draw_photo: Callable[..., bytes],
    bundle_folder: Path,
    night: datetime,
) -> Marketplace:
    market = Marketplace(tmp_path_factory.mktemp("marketplace"), write_manifest, draw_photo)
    # An Airflow that parses the DAGs again between the start of the backfill and the nightly run
    # also runs the night before.
    market.add_day((night - timedelta(days=1)).date().isoformat())
    market.add_labelled()
    market.add_decisions()
    bundle = load_bundle(bundle_folder)
    blind = LinearHead(bundle.head.weight * 0, bundle.head.bias * 0)
    save_bundle(replace(bundle, head=blind), market.folder / "blind")
    market.add_champion(market.folder / "blind")
    market.gates.write_text(GATES.read_text(encoding="utf-8"), encoding="utf-8")
    return market


@pytest.fixture(scope="package")
def airflow(
    marketplace: Marketplace, night: datetime, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow]:
    if not (BIN / "airflow").exists():
        pytest.fail("there is no Airflow: run `make .venv-airflow/.stamp`, as `make test` does")
    folder = marketplace.folder
    package = folder / "seer-categories.zip"
    script = ROOT / "scripts" / "package_zip.py"
    subprocess.run([sys.executable, script, "--root", ROOT, "--output", package], check=True)
    (folder / "airflow").mkdir()
    settings = {
        "PY_FILES": package,
        "REPORTS": folder / "reports",
        "POKE_SECONDS": 1,
        "RETRY_SECONDS": 3,
        "MANIFEST": folder / "manifest",
        "OUTPUT": folder / "categories",
        "EMBEDDINGS": folder / "embeddings",
        "LABELLED": folder / "labelled",
        "LABELS": folder / "labels",
        "TAXONOMY": folder / "taxonomy.csv",
        "BACKBONE": "timm:regnety_002",
        "GATES": marketplace.gates,
        "TRACKING_URI": marketplace.tracking_uri,
    }
    spark = Path(pyspark.__file__).parent / "bin"
    environment = clean_environment()
    environment["SPARK_SUBMIT_OPTS"] += " -Dspark.log.level=WARN"
    environment |= {
        "PATH": f"{BIN}{os.pathsep}{spark}{os.pathsep}{os.environ['PATH']}",
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[1]"}),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        **{f"SEER_AIRFLOW_{name}": str(value) for name, value in settings.items()},
    }
    # Airflow also runs a schedule whose last time is less than a tenth of its interval ago.
    weekly = night + timedelta(days=3)
    crons = {
        "SEER_AIRFLOW_DAILY_CRON": f"{night.minute} {night.hour} * * *",
        "SEER_AIRFLOW_WEEKLY_CRON": f"0 0 * * {weekly.isoweekday() % 7}",
    }
    with local_postgres(tmp_path_factory.mktemp("postgres")) as database:
        airflow = Airflow(folder / "airflow", database, environment)
        with airflow.running(**crons):
            yield airflow


@pytest.fixture(scope="package")
def refresh(airflow: Airflow) -> str:
    """A refresh, which runs beside the daily runs."""
    return airflow.trigger("refresh_weekly", screener_name="colour-screener")


@pytest.fixture(scope="package")
def backfill(airflow: Airflow, marketplace: Marketplace) -> dict[str, str]:
    """The runs of two days, one after the other, beside the others; the first has no indexes."""
    days = [f"2026-11-0{day}" for day in (1, 2)]
    marketplace.add_day(
        days[0], pa.schema([("listing_id", pa.string()), ("image_uri", pa.string())])
    )
    marketplace.add_day(days[1])
    order = {
        "dag_id": "categorize_daily",
        "from_date": f"{days[0]}T00:00:00Z",
        "to_date": f"{days[-1]}T23:59:59Z",
        "max_active_runs": 1,
        "dag_run_conf": {
            name: str(marketplace.folder / name)
            for name in ("reviews", "screening", "descriptions")
        }
        | {"locales": "en,de", "names": f"de={marketplace.folder / 'taxonomy.csv'}"},
    }
    airflow.call("POST", "backfills", order)
    return dict(zip(days, airflow.runs("categorize_daily", "backfill"), strict=True))
