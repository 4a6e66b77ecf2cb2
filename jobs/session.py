"""The Spark session: submitted by spark-submit, or started here on all local cores."""

import os
import re
import sys
from pathlib import Path

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

__all__ = ["local_uri", "start_session"]

_DEFAULTS = {
    # Workers must run this interpreter and keep the model between tasks.
    "spark.python.worker.reuse": "true",
    # Batches bounded by bytes as well: a photo in the manifest may be megabytes.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
    "spark.sql.execution.arrow.maxBytesPerBatch": str(64 << 20),
    "spark.sql.session.timeZone": "UTC",
    # A flipped bit in a file is an error then, not another vector or listing.
    "spark.hadoop.parquet.page.verify-checksum.enabled": "true",
    # Skewed and tiny shuffle partitions are put right as the job runs.
    "spark.sql.adaptive.enabled": "true",
    "spark.ui.showConsoleProgress": "false",
}
# As a cluster does (spark.task.maxFailures): a photo may end the process that decodes it, and only
# the next try is told.
_TRIES = 4
_LOCAL_DEFAULTS = {
    "spark.driver.memory": "4g",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "8",
}


def start_session(name: str) -> SparkSession:
    """The session of spark-submit where there is one, else a local one.

    What spark-submit sets, by flags or by its spark-defaults.conf, is kept; the rest has defaults
    that suit photos. A local one is on all cores, or on those of `MASTER`, Spark's own variable
    for that (`local[2]`). A local master tries a task as often as a cluster does, unless told how
    often (`local[2,1]`).
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    by_submit = "PYSPARK_GATEWAY_PORT" in os.environ
    if by_submit:
        # Under spark-submit the settings are in the JVM that runs already. A JVM that an earlier
        # session here started would give that session's.
        SparkContext._ensure_initialized()
    submitted = SparkConf(loadDefaults=by_submit)
    builder = SparkSession.builder.appName(name)
    defaults = dict(_DEFAULTS)
    master = submitted.get("spark.master")
    if master is None:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        master = os.environ.get("MASTER", "local[*]")
        defaults |= _LOCAL_DEFAULTS
    if local := re.fullmatch(r"local(?:\[([^,\]]+)\])?", master):
        master = f"local[{local[1] or 1},{_TRIES}]"
    builder = builder.master(master)
    for key, value in defaults.items():
        if not submitted.contains(key):
            builder = builder.config(key, value)
    session: SparkSession = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def local_uri(path: Path) -> str:
    """A path as Spark must be given it: one without a scheme is on the cluster's file system.

    Hadoop takes what follows the scheme literally, so unlike `Path.as_uri` this escapes nothing.
    """
    return f"file://{path.absolute()}"
