"""The DAG files, read by Airflow's interpreter: what they define, and what reading them does."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.airflow_instance import BIN
from tests.support.paths import ROOT

pytestmark = pytest.mark.airflow

READ = """
import json, sys, time
import airflow.providers.apache.spark.operators.spark_submit, airflow.sdk, croniter

WORK = {"sqlite3.connect", "socket.connect", "subprocess.Popen", "os.system", "os.mkdir"}
work = []

def watch(event, arguments):
    if event in WORK or (event == "open" and "w" in str(arguments[1])):
        work.append((event, str(arguments)))

sys.addaudithook(watch)
started = time.process_time()
import categorize_daily, refresh_weekly
seconds = time.process_time() - started
tasks = lambda dag: {
    task.task_id: {
        "upstream": sorted(task.upstream_task_ids),
        "retries": task.retries,
        "backoff": task.retry_exponential_backoff,
        "delays": [task.retry_delay.total_seconds(), task.max_retry_delay.total_seconds()],
        "timeout": task.execution_timeout.total_seconds(),
        "doc": task.doc_md,
    }
    for task in dag.tasks
}
print(json.dumps({
    "work": work,
    "seconds": seconds,
    "ours": sorted({"jobs", "schemas", "seer_model", "torch", "mlflow"} & set(sys.modules)),
    "dags": {
        dag.dag_id: {
            "doc": dag.doc_md,
            "catchup": dag.catchup,
            "max_active_runs": dag.max_active_runs,
            "params": {
                name: [param.value, param.description]
                for name in dag.params
                for param in [dag.params.get_param(name)]
            },
            "tasks": tasks(dag),
        }
        for dag in (categorize_daily.dag, refresh_weekly.dag)
    },
}))
"""


def run(code: str, home: Path, **variables: str) -> Any:
    """What code prints as JSON that Airflow's interpreter runs beside the DAG files."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    done = subprocess.run(
        [BIN / "python", "-W", "ignore", "-c", code],
        env={
            **kept,
            **variables,
            "PYTHONPATH": str(ROOT / "airflow_dags"),
            "AIRFLOW_HOME": str(home),
            # To write the files' bytecode would count as work.
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = run(
        READ, tmp_path_factory.mktemp("home"), SEER_AIRFLOW_MANIFEST="/here"
    )
    return found


def test_reading_the_files_does_no_work_and_needs_nothing_of_ours(read: dict[str, Any]) -> None:
    assert read["work"] == []
    assert read["ours"] == []
    assert read["seconds"] < 1


@pytest.mark.parametrize(
    ("name", "upstream"),
    [
        (
            "categorize_daily",
            {
                "wait_for_manifest": [],
                "categorize_listings": ["wait_for_manifest"],
                "check_categories": ["categorize_listings"],
                "screen_listings": ["categorize_listings"],
                "describe_listings": ["categorize_listings"],
                "select_reviews": ["check_categories"],
                "export_reviews": ["select_reviews"],
            },
        ),
        (
            "refresh_weekly",
            {
                "import_reviews": [],
                "estimate_precision": ["import_reviews"],
                "train_head": ["import_reviews"],
                "evaluate_challenger": ["train_head"],
                "promote_challenger": ["evaluate_challenger"],
                "train_screener": [],
                "evaluate_screener": ["train_screener"],
                "promote_screener": ["evaluate_screener"],
            },
        ),
    ],
)
def test_dag(read: dict[str, Any], name: str, upstream: dict[str, list[str]]) -> None:
    dag = read["dags"][name]
    assert {task: found["upstream"] for task, found in dag["tasks"].items()} == upstream
    assert (dag["catchup"], dag["max_active_runs"]) == (False, 1)
    assert dag["doc"]
    for task in dag["tasks"].values():
        assert task["retries"] == 6
        assert task["backoff"] == 2
        assert task["delays"] == [300, 3600]
        assert task["timeout"] > 0
        assert task["doc"]
    assert all(description for _, description in dag["params"].values())


def test_parameters_have_the_defaults_of_the_deployment(read: dict[str, Any]) -> None:
    params = read["dags"]["categorize_daily"]["params"]
    assert params["manifest"][0] == "/here"
    assert params["output"][0] == "/data/categories"
    assert params["ds"][0] is None


def test_day_of_a_run(tmp_path: Path) -> None:
    code = """
import json
from datetime import datetime
from airflow.sdk.exceptions import AirflowFailException
from categorize_daily import choose_day

late = datetime.fromisoformat("2026-11-25T23:30:00-05:00")
try:
    refused = choose_day(None, {"2026-11-02", "2026-11-01"}, late)
except AirflowFailException as error:
    refused = str(error)
print(json.dumps([
    choose_day("2026-01-31", {"2026-11-02", "2026-11-01"}, late),
    choose_day("", {"2026-11-02"}, late),
    choose_day(None, set(), late),
    refused,
]))
"""
    *days, refused = run(code, tmp_path)
    assert days == ["2026-01-31", "2026-11-02", "2026-11-26"]
    assert refused.endswith("run 2026-11-01, 2026-11-02 one by one")


def test_partition_is_complete_without_temporary_files_here_and_in_an_object_store(
    tmp_path: Path,
) -> None:
    code = """
import json, sys
from airflow.sdk import ObjectStoragePath
from categorize_daily import is_complete

seen = []
for root in ("%s", "file://%s/too", "memory://bucket/manifest"):
    partition = ObjectStoragePath(root) / "ds=2026-11-25"
    seen.append(is_complete(partition))
    (partition / "_temporary").mkdir(parents=True, exist_ok=True)
    (partition / "_temporary" / "part-0.parquet").touch()
    seen.append(is_complete(partition))
    (partition / "part-0.parquet").touch()
    seen.append(is_complete(partition))
    (partition / "_temporary" / "part-0.parquet").unlink()
    (partition / "_temporary").rmdir()
    seen.append(is_complete(partition))
print(json.dumps(seen))
"""
    assert run(code % (tmp_path, tmp_path), tmp_path) == [False, False, False, True] * 3
