"""What each Spark of the project must do, besides some of the tests of `tests/spark`.

`make test-lake` runs them in three environments: the lock's, and those of the oldest and the newest
Spark.
"""

import importlib
import pkgutil
import sys
from pathlib import Path

import pyspark
import pytest
from pyspark.sql import SparkSession

import jobs

pytestmark = [pytest.mark.lake, pytest.mark.spark]
MODULES = [module.name for module in pkgutil.walk_packages(jobs.__path__, "jobs.")]
COMMANDS = [
    f"jobs.{module.name}"
    for module in pkgutil.iter_modules(jobs.__path__)
    if not module.ispkg and module.name != "udf"
]


def test_session_is_of_this_environment(spark: SparkSession) -> None:
    assert Path(pyspark.__file__).is_relative_to(sys.prefix)
    assert spark.version == pyspark.__version__


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module(name).main(["--help"]) == 0
    assert f"usage: python -m {name}" in capsys.readouterr().out
