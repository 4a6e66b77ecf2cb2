"""An embedding store in a table, partitioned by backbone and by a bucket of the key.

Whoever reads it opens the files of one backbone alone. Upkeep is the format's own.
"""

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from jobs.command.folders import Folder
from jobs.command.locations import Table
from jobs.stages.store.base import PENDING, EmbeddingStore
from jobs.tables.lake_table import LakeTable
from jobs.tables.opening import TableContract, find_table, open_table
from schemas.columns import column
from schemas.embeddings import EMBEDDINGS

__all__ = ["TableStore"]

_BUCKETS = 16
_CONTRACT = TableContract(
    pa.schema([*EMBEDDINGS, column("bucket", pa.int32(), f"hash of image_key modulo {_BUCKETS}")]),
    ("backbone_digest", "bucket"),
    "Embeddings of photos, one row a photo and backbone (several where runs overlapped)",
)


class TableStore(EmbeddingStore):
    """One backbone's part of a store in a table.

    Args:
        name: The table, created when the first rows are added.
        digest: The backbone's digest.
        scratch: A folder that outlives a run, for the pending embeddings.
    """

    def __init__(self, name: Table, digest: str, scratch: Folder) -> None:
        super().__init__(digest, scratch / PENDING / ".".join(name.parts) / f"backbone={digest}")
        self.name = name

    def rows(self, spark: SparkSession) -> DataFrame | None:
        """The backbone's rows, of the table's current version."""
        table = find_table(spark, self.name)
        if table is None:
            return None
        return table.read(table.version()).where(F.col("backbone_digest") == self.digest)

    def write(self, rows: DataFrame) -> None:
        """Add them in one commit, in a few files a bucket."""
        table: LakeTable = open_table(rows.sparkSession, self.name, _CONTRACT)
        bucket = F.pmod(F.xxhash64("image_key"), F.lit(_BUCKETS)).cast("int")
        table.append(rows.withColumn("bucket", bucket).hint("rebalance", "bucket"), {})
