import os
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.command.session import local_uri, start_early, start_session
from schemas.errors import SettingsError
from tests.support.paths import ROOT

pytestmark = pytest.mark.spark


def test_local_session_is_on_the_cores_of_master(spark: SparkSession) -> None:
    assert spark.sparkContext.master == "local[2,4]"
    assert spark.sparkContext.defaultParallelism == 2


def test_defaults_suit_photos_and_stay_on_this_machine(spark: SparkSession) -> None:
    conf = spark.sparkContext.getConf()
    assert conf.get("spark.python.worker.reuse") == "true"
    assert conf.get("spark.driver.host") == conf.get("spark.driver.bindAddress") == "127.0.0.1"
    assert spark.sparkContext.uiWebUrl is None
    assert spark.conf.get("spark.sql.execution.arrow.maxBytesPerBatch") == str(64 << 20)
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"


def test_second_start_gives_the_same_session(spark: SparkSession) -> None:
    assert start_session("another").sparkContext is spark.sparkContext


def test_an_early_start_gives_the_same_session_too(spark: SparkSession) -> None:
    start_early("early")
    assert start_session("later").sparkContext is spark.sparkContext


def test_the_error_of_an_early_start_is_raised_where_the_session_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPARK_REMOTE", "sc://host:no-port")
    start_early("early")
    with pytest.raises(SettingsError, match="SPARK_REMOTE"):
        start_session("later")


@pytest.mark.parametrize("name", ["plain", "with a space", "100%20", "é 沙发", "a#b+c"])
def test_local_uri_names_the_folder_that_python_means(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    spark.range(3, numPartitions=1).write.parquet(local_uri(Path(name)))
    assert (tmp_path / name / "_SUCCESS").is_file()
    assert spark.read.parquet(local_uri(tmp_path / name)).count() == 3


TWO_SESSIONS = """
import os
from jobs.command.session import start_session
for master in ("local[1]", "local[2,1]"):
    os.environ["MASTER"] = master
    session = start_session("one of two")
    print(session.sparkContext.master)
    session.stop()
"""


@pytest.mark.slow
def test_a_later_session_is_not_on_the_master_of_an_earlier_one() -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYSPARK_GATEWAY_PORT"}
    done = subprocess.run(
        [sys.executable, "-c", TWO_SESSIONS],
        capture_output=True,
        text=True,
        check=True,
        env=env | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.split() == ["local[1,4]", "local[2,1]"]
