"""How a session of the tests starts its Python workers, see `tests.support.warm_daemon`."""

CONVERSIONS = "SEER_TEST_CONVERSIONS"
"""The variable that names the folder of what the processes of the tests make once for all."""
SUBMIT_ARGS = "--conf spark.python.daemon.module=tests.support.warm_daemon pyspark-shell"
"""The value of PYSPARK_SUBMIT_ARGS for such a session."""
