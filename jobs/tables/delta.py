"""Delta Lake: versions are numbers, a commit's properties are JSON in its `userMetadata`."""

import json
from collections.abc import Mapping
from typing import Any

from pyspark.sql.readwriter import DataFrameWriterV2

from jobs.tables.lake_table import LakeTable

__all__ = ["DeltaTable"]

_COMMITS_LOOKED_THROUGH = 100


class DeltaTable(LakeTable):
    """A table of Delta's."""

    conflicts = ("ConcurrentModificationException", "DELTA_CONCURRENT", "ConcurrentAppend")

    def _current_version(self) -> str | None:
        row = self._sql(f"DESCRIBE HISTORY {self.name.sql} LIMIT 1").first()
        return str(row["version"]) if row else None

    def _find_version(self, commit: str) -> str | None:
        history = self._sql(f"DESCRIBE HISTORY {self.name.sql} LIMIT {_COMMITS_LOOKED_THROUGH}")
        for row in history.select("version", "userMetadata").collect():
            if commit in (row["userMetadata"] or ""):
                return str(row["version"])
        return None

    def _with_properties(
        self, writer: DataFrameWriterV2, properties: Mapping[str, str]
    ) -> DataFrameWriterV2:
        return writer.option("userMetadata", json.dumps(properties))

    def maintain(self) -> dict[str, Any]:
        """Merge small files; remove versions older than the table keeps (a week by default)."""
        merged = self._sql(f"OPTIMIZE {self.name.sql}").select("metrics.*").collect()
        self._sql(f"VACUUM {self.name.sql}").collect()
        return {
            "files_merged": sum(row["numFilesRemoved"] for row in merged),
            "files_added": sum(row["numFilesAdded"] for row in merged),
        }
