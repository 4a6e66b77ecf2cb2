"""Upkeep of an embedding store in a table, by the format's own procedures."""

from collections.abc import Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from jobs.command.locations import Table
from jobs.command.progress import show_progress
from jobs.tables.lake_table import LakeTable
from jobs.tables.opening import find_table
from schemas.errors import SettingsError

__all__ = ["maintain_table"]


def maintain_table(
    spark: SparkSession, name: Table, keys: DataFrame | None, drop_backbones: Sequence[str]
) -> dict[str, Any]:
    """Drop backbones, expire photos, merge small files, remove old versions.

    Runs at work are not disturbed: each step is a commit, and old versions are kept for some days.
    Duplicates, of runs that overlapped, stay.

    Args:
        spark: The session.
        name: The table.
        keys: The unique `image_key` of photos to keep, or None for all.
        drop_backbones: Digests of backbones to drop.

    Returns:
        Figures for the report.

    Raises:
        SettingsError: There is no such table or backbone.
    """
    table = find_table(spark, name)
    if table is None:
        raise SettingsError(f"--embeddings {name}: no such table")
    before = _count(table)
    for digest in drop_backbones:
        if digest not in before:
            known = ", ".join(sorted(before)) or "no backbone"
            raise SettingsError(f"--drop-backbone {digest}: {name} has {known}")
        table.delete(f"backbone_digest = '{digest}'")
    if keys is not None:
        with show_progress(spark, "expiring embeddings"):
            table.keep(keys, "image_key")
    with show_progress(spark, "merging files"):
        files = table.maintain()
    after = _count(table)
    return {
        **files,
        **{
            f"backbone={digest}": {
                "rows_before": rows,
                "rows_after": after.get(digest, (0, 0))[0],
                "duplicates": after.get(digest, (0, 0))[1],
            }
            for digest, (rows, _) in sorted(before.items())
            if digest not in drop_backbones
        },
    }


def _count(table: LakeTable) -> dict[str, tuple[int, int]]:
    """Rows, and those with the same photo as another, by backbone."""
    rows = table.read(table.version()).groupBy("backbone_digest")
    counts = rows.agg(
        F.count("*").alias("rows"), F.countDistinct("image_key").alias("photos")
    ).collect()
    return {row["backbone_digest"]: (row["rows"], row["rows"] - row["photos"]) for row in counts}
