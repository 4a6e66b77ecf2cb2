"""Screen listings on Spark: photos with their signals to one row a listing."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark import SparkFiles
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import from_arrow_schema

from schemas.screening import SCREENING, Action
from seer_model.screener.screener import Finding, Screener, load_screener

__all__ = ["SCREENED", "screen_photos"]

SCREENED: pa.Schema = pa.schema(
    [
        SCREENING.field(name)
        for name in ("listing_id", "action", "findings", "photos_screened", "photos_rejected")
    ]
)
"""What the rules say of a listing; the rest of its row is the run's."""


def screen_photos(photos: DataFrame, screener: str) -> DataFrame:
    """Screen each listing's photos.

    Args:
        photos: listing_id, image_index, reject_reason, and `hashes` and `text` where they were
            read; one row a photo.
        screener: Name of the screener, from `ship_model`.

    Returns:
        `SCREENED`, one row a distinct listing.
    """
    signals = [name for name in ("hashes", "text") if name in photos.columns]
    photo = F.struct("image_index", "reject_reason", *signals)
    listings = photos.groupBy("listing_id").agg(F.collect_list(photo).alias("photos"))

    def screen(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        opened = _open_screener(screener)
        for batch in batches:
            rows = batch.to_pylist()
            found = opened.screen([row["photos"] for row in rows])
            screened = [_as_row(*each) for each in zip(rows, found, strict=True)]
            yield pa.RecordBatch.from_pylist(screened, schema=SCREENED)

    return listings.mapInArrow(screen, from_arrow_schema(SCREENED))


@lru_cache(maxsize=1)
def _open_screener(name: str) -> Screener:
    """Open a shipped screener, once a worker process."""
    return load_screener(Path(SparkFiles.get(name)))


def _as_row(listing: dict[str, Any], findings: list[Finding]) -> dict[str, Any]:
    rejected = sum(photo["reject_reason"] is not None for photo in listing["photos"])
    return {
        "listing_id": listing["listing_id"],
        "action": findings[0].action if findings else Action.ALLOW,
        "findings": [asdict(finding) for finding in findings],
        "photos_screened": len(listing["photos"]) - rejected,
        "photos_rejected": rejected,
    }
