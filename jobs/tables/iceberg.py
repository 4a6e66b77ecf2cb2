"""Apache Iceberg: versions are snapshots, a commit's properties are in their summary."""

from collections.abc import Mapping
from typing import Any

from pyspark.sql.readwriter import DataFrameWriterV2

from jobs.tables.lake_table import COMMIT_ID, LakeTable

__all__ = ["IcebergTable"]


class IcebergTable(LakeTable):
    """A table of Iceberg's."""

    conflicts = ("CommitFailedException", "ValidationException")

    def _current_version(self) -> str | None:
        refs = self._sql(f"SELECT snapshot_id FROM {self.name.sql}.refs WHERE name = 'main'")
        row = refs.first()
        return str(row[0]) if row else None

    def _find_version(self, commit: str) -> str | None:
        row = self._sql(
            f"SELECT snapshot_id FROM {self.name.sql}.snapshots "
            f"WHERE summary['{COMMIT_ID}'] = '{commit}'"
        ).first()
        return str(row[0]) if row else None

    def _with_properties(
        self, writer: DataFrameWriterV2, properties: Mapping[str, str]
    ) -> DataFrameWriterV2:
        for name, value in properties.items():
            writer = writer.option(f"snapshot-property.{name}", value)
        return writer

    def maintain(self) -> dict[str, Any]:
        """Merge small files; remove expired snapshots (after 5 days by default) and orphans."""
        merged = self._call("rewrite_data_files")
        expired = self._call("expire_snapshots")
        # Else Hadoop would list the files, which knows no addresses s3://.
        orphans = self._call("remove_orphan_files", ", prefix_listing => true")
        return {
            "files_merged": sum(row["rewritten_data_files_count"] for row in merged),
            "files_added": sum(row["added_data_files_count"] for row in merged),
            "files_expired": sum(row["deleted_data_files_count"] for row in expired),
            "files_orphaned": len(orphans),
        }

    def _call(self, procedure: str, options: str = "") -> list[Any]:
        arguments = f"table => '{self.name.in_catalog}'{options}"
        return self._sql(f"CALL `{self.name.catalog}`.system.{procedure}({arguments})").collect()
