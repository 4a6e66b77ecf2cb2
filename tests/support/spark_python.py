"""How a session of the tests is started: its Python workers, its formats of tables.

`tests.support.warm_daemon` explains the workers.
"""

from tests.support.paths import ROOT

CONVERSIONS = "SEER_TEST_CONVERSIONS"
"""The variable that names the folder of what the processes of the tests make once for all."""
DAEMON = "tests.support.warm_daemon"
JARS = sorted((ROOT / ".jars").glob("*.jar"))
"""The connectors of Iceberg and Delta, which `make test` fetches."""
TABLE_FORMATS = {
    "spark.jars": ",".join(
        str(jar) for jar in JARS if jar.name.startswith(("delta", "iceberg-spark"))
    ),
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # A table here has a handful of rows, and a task takes longer than it.
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
}
"""Settings of a session with both formats; Delta's tables are in `spark_catalog`."""


def submit_args(**settings: str) -> str:
    """A value of PYSPARK_SUBMIT_ARGS for a session with these settings and the tests' workers."""
    conf = {"spark.python.daemon.module": DAEMON, **settings}
    return " ".join([*(f"--conf {name}={value}" for name, value in conf.items()), "pyspark-shell"])
