"""What a task that embeds takes of its executor."""

from pyspark.resource import ResourceProfile, ResourceProfileBuilder, TaskResourceRequests
from pyspark.sql import SparkSession

__all__ = ["embedding_resources"]


def embedding_resources(spark: SparkSession) -> ResourceProfile | None:
    """A GPU and its share of the executor's cores, where executors have GPUs.

    Tasks that read and score then take a core each and no GPU. None, for the session's settings,
    where executors have no GPUs, or `spark.task.resource.gpu.amount` gives every task one.
    """
    gpus = int(spark.conf.get("spark.executor.resource.gpu.amount", "0") or 0)
    if not gpus or spark.conf.get("spark.task.resource.gpu.amount", None):
        return None
    cores = int(spark.conf.get("spark.executor.cores", "1") or 1)
    requests = TaskResourceRequests().cpus(max(1, cores // gpus)).resource("gpu", 1)
    return ResourceProfileBuilder().require(requests).build
