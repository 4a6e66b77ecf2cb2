"""The Spark session of a job: spark-submit's, a Spark Connect server's, or a quiet local one."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.java_gateway import launch_gateway
from pyspark.sql import DataFrameReader, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.utils import is_remote

from jobs.command.connect import ship_code, wait_for_server
from schemas.errors import SettingsError
from seer_model.processes import scratch_folder

__all__ = ["default_parallelism", "local_uri", "parquet_reader", "start_early", "start_session"]

_DEFAULTS = {
    # Workers must run this interpreter and keep the model between tasks.
    "spark.python.worker.reuse": "true",
    # Batches are bounded by bytes as well: a photo in the manifest may be megabytes.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
    "spark.sql.execution.arrow.maxBytesPerBatch": str(64 << 20),
    "spark.sql.session.timeZone": "UTC",
    # Columns are those of the contract to the letter, whatever else a file holds.
    "spark.sql.caseSensitive": "true",
    # A flipped bit in a file is an error then, not another embedding or listing.
    "spark.hadoop.parquet.page.verify-checksum.enabled": "true",
    # Rebalances skewed and tiny shuffle partitions at run time.
    "spark.sql.adaptive.enabled": "true",
    "spark.ui.showConsoleProgress": "false",
}
# Attempts at a task, the default of a cluster's spark.task.maxFailures: a photo may kill the
# process that decodes it, and only the next attempt knows which photo to reject.
_ATTEMPTS = 4
_LOCAL_DEFAULTS = {
    "spark.driver.memory": "4g",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "8",
}
_CANCEL_SECONDS = 5.0
_LOG4J = Path(__file__).with_name("log4j2.properties")
# The JVM prints this at every start, before log4j runs, and has no option to turn it off.
_NOISE = "^WARNING: Using incubator modules: jdk.incubator.vector$"

_early: list[Future[SparkSession]] = []


def start_early(name: str) -> None:
    """Start the session on a thread of its own, while the program imports and connects.

    The next `start_session` waits for it, and raises its errors. A program that ends before takes
    Spark along.
    """
    session: Future[SparkSession] = Future()

    def start() -> None:
        try:
            session.set_result(_start(name))
        except BaseException as error:
            session.set_exception(error)

    _early.append(session)
    threading.Thread(target=start, daemon=True, name="start Spark").start()


def start_session(name: str) -> SparkSession:
    """Return the session of spark-submit or Spark Connect where there is one, else a local one.

    `SPARK_REMOTE` (`sc://host:15002`) names a Connect server; spark-submit sets it for `--remote`
    with `--conf spark.api.mode=connect`.

    Settings and logging of spark-submit, from its flags and its configuration files, are kept;
    what they leave open gets defaults that suit photos. A local session runs on all cores, or on
    those of Spark's own variable `MASTER` (`local[2]`), logs errors only, and tries a task as
    often as a cluster does unless told otherwise (`local[2,1]`).

    Raises:
        SettingsError: There is no such Connect server, or its client's packages are missing.
    """
    session = _early.pop().result() if _early else _start(name)
    cancel = session.interruptAll if is_remote() else session.sparkContext.cancelAllJobs
    _cancel_jobs_on_interrupt(cancel)
    return session


def _start(name: str) -> SparkSession:
    if url := os.environ.get("SPARK_REMOTE"):
        return _connect(url, name)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    by_submit = "PYSPARK_GATEWAY_PORT" in os.environ
    if by_submit:
        # Under spark-submit the settings are in the JVM that runs already. A JVM that an earlier
        # session here started would give that session's.
        SparkContext._ensure_initialized()
    submitted = SparkConf(loadDefaults=by_submit)
    if submitted.contains("spark.remote"):
        raise SettingsError("spark-submit --remote needs --conf spark.api.mode=connect, too")
    defaults = dict(_DEFAULTS)
    master = submitted.get("spark.master")
    if master is None:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        master = os.environ.get("MASTER", "local[*]")
        defaults |= _LOCAL_DEFAULTS
        # Where the next run removes what a killed one leaves.
        defaults["spark.local.dir"] = str(scratch_folder() / "spark")
    if not by_submit and _LOG4J.is_file():  # In a zip it is none.
        # Options in spark.driver.extraJavaOptions come later, and so may name another file.
        option = f"-Dlog4j2.configurationFile={_LOG4J.as_uri()}"
        defaults["spark.driver.defaultJavaOptions"] = option
    if local := re.fullmatch(r"local(?:\[([^,\]]+)\])?", master):
        master = f"local[{local[1] or 1},{_ATTEMPTS}]"
    settings = {"spark.app.name": name, "spark.master": master} | {
        key: value for key, value in defaults.items() if not submitted.contains(key)
    }
    if not by_submit and SparkContext._gateway is None:
        _start_jvm(settings)
    builder = SparkSession.builder
    for key, value in settings.items():
        builder = builder.config(key, value)
    session: SparkSession = builder.getOrCreate()
    if not by_submit:
        session.sparkContext.setLogLevel("ERROR")
    return session


def _connect(url: str, name: str) -> SparkSession:
    """Return the session of a Spark Connect server, whose Python workers get the jobs' code."""
    wait_for_server(url)
    try:
        session: SparkSession = SparkSession.builder.appName(name).getOrCreate()
    except PySparkException as error:
        raise SettingsError(f"SPARK_REMOTE: {error}") from error
    given = session.conf.getAll
    for key, value in _DEFAULTS.items():
        if key not in given and session.conf.isModifiable(key):
            session.conf.set(key, value)
    ship_code(session)
    return session


def _cancel_jobs_on_interrupt(cancel: Callable[[], object]) -> None:
    """Handle Ctrl-C on a thread of its own: Spark's handler breaks the call that it interrupts."""
    if threading.current_thread() is not threading.main_thread():
        return  # Only the main thread may set signal handlers.

    def interrupt(*_: object) -> None:
        cancelling = threading.Thread(target=cancel, daemon=True)
        cancelling.start()
        cancelling.join(_CANCEL_SECONDS)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


def _start_jvm(settings: dict[str, str]) -> None:
    """Start Spark's JVM, with what it writes to standard error passed on but for `_NOISE`."""
    grep = shutil.which("grep")
    if grep is None:
        return  # Spark will start it, noise included.
    # Ctrl-C must not end this before the JVM: hence a session of its own.
    quiet = subprocess.Popen(  # noqa: S603
        [grep, "--line-buffered", "-v", _NOISE],
        stdin=subprocess.PIPE,
        stdout=2,
        start_new_session=True,
    )
    assert quiet.stdin is not None  # noqa: S101
    conf = SparkConf(loadDefaults=False).setAll(list(settings.items()))
    gateway = launch_gateway(conf, {"stderr": quiet.stdin})  # type: ignore[no-untyped-call]
    quiet.stdin.close()  # The JVM holds the other end, and the filter ends with it.
    gateway.stderr_filter = quiet  # Kept, or Python warns of a process that still runs.
    SparkContext._ensure_initialized(gateway=gateway)


def default_parallelism(spark: SparkSession) -> int:
    """How many tasks Spark makes of work whose size it does not know: as a rule its cores."""
    if not is_remote():
        return spark.sparkContext.defaultParallelism
    return spark.range(1 << 20).select(F.spark_partition_id()).distinct().count()


def local_uri(path: Path) -> str:
    """Return a path as a `file:` address: without a scheme it is on the cluster's file system.

    Hadoop takes what follows the scheme literally, so unlike `Path.as_uri` this escapes nothing.
    """
    return f"file://{path.absolute()}"


def parquet_reader(spark: SparkSession) -> DataFrameReader:
    """Return a reader that takes paths literally, and fails at files it cannot read.

    Else Spark takes `[`, `{`, `?` and `*` in a path for patterns, fails at a colon beside it, and
    skips damaged files where the cluster's configuration says so.
    """
    return (
        spark.read.option("__globPaths__", False)
        .option("ignoreCorruptFiles", False)
        .option("ignoreMissingFiles", False)
    )
