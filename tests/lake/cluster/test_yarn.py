"""Jobs on YARN in cluster mode, in the packed environment, all its data on HDFS.

HDFS and YARN are real, of one node; the job's driver and its executor run in containers.
"""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.command.locks import take_lock
from tests.support.airflow_instance import BIN as AIRFLOW
from tests.support.hadoop_cluster import HadoopCluster, hadoop_cluster
from tests.support.paths import ROOT
from tests.support.spark_java import BIN
from tests.support.spark_python import JARS
from tests.support.standalone_cluster import JOB, Job, clean_environment

pytestmark = [pytest.mark.lake, pytest.mark.spark, pytest.mark.slow]

ARCHIVE = "hdfs:///seer-environment.tar.gz#environment"
CONF = {
    "spark.pyspark.python": "./environment/bin/python",
    # A retry is the scheduler's affair, which knows the exit code.
    "spark.yarn.maxAppAttempts": "1",
    "spark.yarn.jars": f"local:{BIN.with_name('jars')}/*",
    "spark.driver.memory": "768m",
    "spark.executor.cores": "2",
    "spark.executor.instances": "1",
    "spark.executor.memory": "512m",
    "spark.sql.shuffle.partitions": "2",
    "spark.yarn.appMasterEnv.SPARK_LOCAL_IP": "127.0.0.1",
    "spark.executorEnv.SPARK_LOCAL_IP": "127.0.0.1",
}
AS_AIRFLOW = """
import json, sys
from airflow.sdk.exceptions import AirflowFailException
from seer_airflow.operators import SubmitJob

task = SubmitJob(job="categorize_listings", flags=json.loads(sys.argv[1]))
task.flags["--report"] = sys.argv[2]
try:
    print(json.dumps(task.execute({})))
except AirflowFailException as error:
    print(json.dumps({"failed": str(error)}))
except Exception:
    print(json.dumps({"retried": task._driver_code}))
"""


@pytest.fixture(scope="module")
def yarn(
    environment_archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HadoopCluster]:
    with hadoop_cluster(tmp_path_factory.mktemp("hadoop")) as cluster:
        cluster.upload(environment_archive, "/seer-environment.tar.gz")
        yield cluster


@pytest.fixture
def submitted(job: Job, yarn: HadoopCluster) -> Mapping[str, str]:
    """The job's arguments, its manifest on HDFS."""
    arguments = {name: str(value) for name, value in job.arguments.items()}
    folder = Path(arguments["--manifest"].removeprefix("file://"))
    yarn.upload(folder, f"/{folder.parent.name}")
    return arguments | {"--manifest": f"hdfs:///{folder.parent.name}"}


def test_jobs_run_in_containers_from_hdfs_to_tables_on_hdfs(
    spark: SparkSession, yarn: HadoopCluster, package: Path, job: Job, submitted: Mapping[str, str]
) -> None:
    (iceberg,) = (jar for jar in JARS if jar.name.startswith("iceberg-spark"))
    catalog = {
        "spark.sql.catalog.hdfs": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.hdfs.type": "hadoop",
        "spark.sql.catalog.hdfs.warehouse": f"{yarn.hdfs}/lake",
    }
    conf = CONF | catalog | {"spark.jars": f"local:{iceberg}"}
    command = [BIN / "spark-submit", "--master", "yarn", "--deploy-mode", "cluster"]
    command += ["--py-files", package, "--archives", ARCHIVE]
    command += [part for pair in conf.items() for part in ("--conf", "=".join(pair))]
    environment = clean_environment() | {"HADOOP_CONF_DIR": str(yarn.conf)}
    del environment["PYSPARK_PYTHON"]
    store = {"--embeddings": "table:hdfs.shop.embeddings", "--scratch": "hdfs:///scratch"}

    def run(name: str, table: str, flags: Mapping[str, str]) -> dict[str, Any]:
        arguments = {**flags, **store, "--output": f"table:hdfs.shop.{table}"}
        done = subprocess.run(
            [*command, JOB.with_name(name), *(part for pair in arguments.items() for part in pair)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            cwd=job.folder,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        report: dict[str, Any] = json.loads(Path(flags["--report"]).read_text(encoding="utf-8"))
        return report

    assert run(JOB.name, "categories", submitted)["photos_embedded"] == job.listings.total()
    described = run("describe_listings.py", "descriptions", {**submitted, "--locale": "de"})
    # Its backbone is the one in the package.
    without_model = {name: value for name, value in submitted.items() if name != "--model"}
    screened = run("screen_listings.py", "screening", without_model)
    assert described["photos"] == screened["photos"] == job.listings.total()
    for name, value in catalog.items():
        spark.conf.set(name, value)
    for table in ("categories", "screening"):
        found = spark.table(f"hdfs.shop.{table}").select("listing_id").collect()
        assert Counter(row["listing_id"] for row in found) == dict.fromkeys(job.listings, 1)
    assert spark.table("hdfs.shop.descriptions").count() == job.listings.total()
    assert spark.table("hdfs.shop.embeddings").count() > 0
    assert yarn.list("/scratch") == ["_pending"]
    of_backbones = yarn.list("/scratch/_pending/hdfs.shop.embeddings")
    assert len(of_backbones) == 2
    for pending in of_backbones:
        assert yarn.list(f"/scratch/_pending/hdfs.shop.embeddings/{pending}") == []


def test_airflow_knows_the_exit_code_of_a_driver_in_a_container(
    yarn: HadoopCluster, package: Path, submitted: Mapping[str, str], tmp_path: Path
) -> None:
    """One run without data (3), one that finds the partition held (5)."""

    def execute(ds: str) -> dict[str, object]:
        flags = {**submitted, "--ds": ds}
        report = flags.pop("--report")
        done = subprocess.run(
            [AIRFLOW / "python", "-W", "ignore", "-c", AS_AIRFLOW, json.dumps(flags), report],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return found

    connection = {"conn_type": "spark", "host": "yarn", "extra": {"deploy-mode": "cluster"}}
    environment = clean_environment() | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HADOOP_CONF_DIR": str(yarn.conf),
        "PYTHONPATH": str(ROOT / "airflow_dags"),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps(connection),
        "SEER_AIRFLOW_PY_FILES": str(package),
        "SEER_AIRFLOW_ARCHIVES": ARCHIVE,
        "SEER_AIRFLOW_SPARK_CONF": json.dumps(CONF),
    }
    del environment["PYSPARK_PYTHON"]
    assert execute("2026-01-01") == {"failed": "exit code 3: see the driver's log"}
    output = Path(submitted["--output"])
    (output / "_locks").mkdir(parents=True)
    lock = output / "_locks" / f"ds={submitted['--ds']}.lock"
    with take_lock(lock, "the partition", "a run that is still alive"):
        assert execute(submitted["--ds"]) == {"retried": 5}
