"""Fingerprint the rows a job reads or writes: the digest of its MLflow dataset.

The digest is a sum of hashes, one a row, so it does not depend on the order of rows or files. Spark
and Python compute the same.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.types import StringType

from jobs.command.progress import show_progress
from schemas.errors import without_passwords
from seer_model.photos.fetch import known_schemes

__all__ = ["describe_data", "describe_rows"]

_COLUMNS = ("listing_id", "image_index", "category_id", "split")
_SCHEME = "^([A-Za-z][A-Za-z0-9+.-]+)://"
_NULL = "\0"
_HEX_DIGITS = 15
_DIGEST_DIGITS = 32


def describe_data(photos: DataFrame, manifest: str, ds: str | None) -> dict[str, Any]:
    """Describe and fingerprint the photos that a job reads.

    Reads the small columns once, and `image_bytes` only of rows with neither an `image_key` nor an
    `image_uri`.

    Args:
        photos: Rows of `jobs.stages.manifest.read_photos`, all or some.
        manifest: The manifest's folder.
        ds: The partition, or None for all.

    Returns:
        `manifest`, `ds`, `rows`, `digest` (32 hexadecimal digits that depend on listings, order of
        their photos, keys, labels and splits) and `schemes`: photos by the scheme of their address,
        of those that fsspec knows.
    """
    scheme = F.lower(F.regexp_extract("image_uri", _SCHEME, 1))
    known = F.when(scheme.isin(known_schemes()), scheme)

    def count_and_sum(rows: DataFrame, key: str) -> list[Row]:
        numbers = F.conv(F.substring(_row_digest(key), 1, _HEX_DIGITS), 16, 10)
        columns = (
            F.count("*").alias("rows"),
            F.count(key).alias("keys"),
            F.sum(F.when(F.col(key).isNotNull(), numbers.cast("decimal(38,0)"))).alias("sum"),
        )
        return rows.groupBy(known.alias("scheme")).agg(*columns).collect()

    with show_progress(photos.sparkSession, "reading the manifest"):
        found = count_and_sum(photos, "cheap_key")
        rows = sum(row["rows"] for row in found)
        total = sum(int(row["sum"] or 0) for row in found)
        if sum(row["keys"] for row in found) < rows:
            without = count_and_sum(photos.where("cheap_key is null"), "photo_key")
            total += sum(int(row["sum"]) for row in without)
    schemes = {row["scheme"]: row["rows"] for row in found if row["scheme"]}
    return {**_description(manifest, ds, rows, total), "schemes": schemes}


def _row_digest(key: str) -> Column:
    names = (*_COLUMNS, key)
    columns = [F.coalesce(F.col(name).cast(StringType()), F.lit(_NULL)) for name in names]
    return F.sha2(F.concat_ws("\n", *columns), 256)


def describe_rows(
    rows: Iterable[Mapping[str, Any]], manifest: str, ds: str | None
) -> dict[str, Any]:
    """What `describe_data` returns, without the schemes, for rows that are being written.

    Args:
        rows: Rows of the manifest without `updated_at`.
        manifest: The manifest's folder.
        ds: The partition.
    """
    count = total = 0
    for row in rows:
        key = row["image_key"] or hashlib.sha256(f"{row['image_uri']}\n".encode()).hexdigest()
        values = [*(row[name] for name in _COLUMNS), key]
        text = "\n".join(_NULL if value is None else str(value) for value in values)
        total += int(hashlib.sha256(text.encode()).hexdigest()[:_HEX_DIGITS], 16)
        count += 1
    return _description(manifest, ds, count, total)


def _description(manifest: str, ds: str | None, rows: int, total: int) -> dict[str, Any]:
    digest = hashlib.sha256(f"{rows} {total}".encode()).hexdigest()[:_DIGEST_DIGITS]
    return {"manifest": without_passwords(manifest), "ds": ds, "rows": rows, "digest": digest}
