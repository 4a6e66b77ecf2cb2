"""Cheap Java processes for Spark, of which the tests start about a hundred.

A small job's Java process takes ten CPU seconds, half of them to load and verify classes. An
archive of loaded classes saves that half. Java takes none where a folder on the class path holds
files, so Spark's settings come from a variable, not from a `spark-defaults.conf`.
"""

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pyspark

BIN = Path(pyspark.__file__).parent / "bin"
_QUICK = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # Compile little, collect on one thread.
_SETTINGS = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.enabled": "false",
}
# Loads the classes of a session, of Parquet, of an aggregate, a join and a pandas UDF.
_TYPICAL_JOB = """
from pyspark.sql import SparkSession, functions as F

spark = SparkSession.builder.master("local[2]").getOrCreate()
numbers = spark.range(100).select((F.col("id") % 7).cast("string").alias("key"), "id")
numbers.write.parquet("numbers")
rows = spark.read.parquet("numbers")
sums = rows.groupBy("key").agg(F.sum("id").alias("sum"), F.collect_list("id").alias("ids"))
joined = rows.join(sums, "key", "left").select("key", "sum")
joined.mapInPandas(lambda frames: frames, "key string, sum long").toPandas()
"""


def variables(folder: Path) -> dict[str, str]:
    """Environment variables with the options of Spark's drivers and daemons.

    Args:
        folder: Keeps the archive from one run of the tests to the next.
    """
    java = f"{_QUICK} -XX:SharedArchiveFile={_archive(folder)} -Xlog:cds*=off"
    settings = _SETTINGS | {"spark.executor.extraJavaOptions": java}
    driver = [java, *(shlex.quote(f"-D{name}={value}") for name, value in settings.items())]
    return {"SPARK_SUBMIT_OPTS": " ".join(driver), "SPARK_DAEMON_JAVA_OPTS": java}


def _archive(folder: Path) -> Path:
    """The archive for this Java and this Spark, made where it is missing in half a minute."""
    java = Path(os.environ["JAVA_HOME"], "bin", "java") if "JAVA_HOME" in os.environ else "java"
    version = subprocess.run([java, "-version"], capture_output=True, check=True).stderr
    which = [version, BIN, *sorted(BIN.with_name("jars").iterdir())]
    archive = folder / f"{hashlib.sha256(repr(which).encode()).hexdigest()}.jsa"
    if not archive.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            script, made = Path(work, "typical_job.py"), Path(work, "made.jsa")
            script.write_text(_TYPICAL_JOB, encoding="utf-8")
            subprocess.run(
                [BIN / "spark-submit", script],
                cwd=work,
                env={
                    **os.environ,
                    "PYSPARK_PYTHON": sys.executable,
                    "SPARK_SUBMIT_OPTS": f"{_QUICK} -XX:ArchiveClassesAtExit={made}",
                },
                capture_output=True,
                check=True,
            )
            made.replace(archive)
    return archive
