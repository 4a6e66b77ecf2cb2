"""How a session of the tests starts its Python workers, see `tests.support.warm_daemon`."""

CONVERSIONS = "SEER_TEST_CONVERSIONS"
"""The variable that names the folder of what the processes of the tests make once for all."""
DAEMON = "tests.support.warm_daemon"
SUBMIT_ARGS = f"--conf spark.python.daemon.module={DAEMON} pyspark-shell"
"""The value of PYSPARK_SUBMIT_ARGS for such a session."""
