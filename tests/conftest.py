"""What all tests share: cheap JVMs, one Spark session a process, the order of the files."""

import os
import tempfile
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession
from xdist.scheduler import LoadScopeScheduling

from jobs.command.session import start_session
from tests.support.paths import ROOT
from tests.support.spark_java import variables
from tests.support.spark_python import CONVERSIONS, TABLE_FORMATS, submit_args

LONGEST_FIRST = (
    *("tests/dags/", "tests/lake/cluster/", "tests/spark/faults/", "tests/e2e/", "tests/spark/"),
    *("tests/unit/training/", "tests/unit/backbones/", "tests/unit/tracking/"),
)
"""A long file that begins last would keep one worker busy while the others are done."""
ON_ONE_WORKER = ("tests/dags/", "tests/lake/cluster/")
"""Folders whose files share what is started once a session."""
UNIT = "tests/unit"
"""What runs without Spark."""


def pytest_configure(config: pytest.Config) -> None:
    # Without bytecode every process compiles torch anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Threads that spin while they wait take the cores from the other worker.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.pop("SPARK_CONF_DIR", None)
    if not hasattr(config, "workerinput"):  # The workers of xdist inherit the variable.
        conversions = tempfile.TemporaryDirectory(prefix="seer-tests-")
        os.environ[CONVERSIONS] = conversions.name
        config.add_cleanup(conversions.cleanup)
        if config.args != [UNIT]:
            os.environ.update(variables(config.cache.mkdir("spark")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        folders = enumerate(LONGEST_FIRST)
        return next((n for n, folder in folders if item.nodeid.startswith(folder)), n_folders)

    n_folders = len(LONGEST_FIRST)
    items.sort(key=rank)


class FilesTogether(LoadScopeScheduling):
    """Runs a file's tests on one worker, and those of some folders all on one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in ON_ONE_WORKER if file.startswith(folder)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FilesTogether:
    config.option.loadscopereorder = False  # The order is that of the hook above.
    return FilesTogether(config, log)


@pytest.fixture(scope="session")
def spark(request: pytest.FixtureRequest) -> Iterator[SparkSession]:
    """A session on two cores, the only one of this process; with tables where tests need them."""
    tables = any(item.get_closest_marker("lake") for item in request.session.items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASTER", "local[2]")
        # Python workers find the packages whatever folder pytest was started in, and no GPU, so
        # that they compute as this process does.
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("PYSPARK_SUBMIT_ARGS", submit_args(**TABLE_FORMATS if tables else {}))
        session = start_session("tests")
        yield session
        session.stop()
