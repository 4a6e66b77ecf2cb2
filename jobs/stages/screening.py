"""Screen listings on Spark: photos with their signals to one row a listing."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
from pyspark import SparkFiles
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import from_arrow_schema

from seer_model.screener.folder import load_screener
from seer_model.screener.screener import SCREENED, Screener

__all__ = ["screen_photos"]


def screen_photos(photos: DataFrame, screener: str) -> DataFrame:
    """Screen each listing's photos.

    Args:
        photos: listing_id, image_index, reject_reason, and of `vector`, `hashes` and `text` what
            the screener needs; one row a photo.
        screener: Name of the screener, from `ship_model`.

    Returns:
        `SCREENED`, one row a distinct listing.
    """
    needed = [name for name in ("vector", "hashes", "text") if name in photos.columns]
    photo = F.struct("image_index", "reject_reason", *needed)
    listings = photos.groupBy("listing_id").agg(F.collect_list(photo).alias("photos"))

    def screen(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        opened = _open_screener(screener)
        for batch in batches:
            rows = batch.to_pylist()
            yield opened.rows([row["listing_id"] for row in rows], [row["photos"] for row in rows])

    return listings.mapInArrow(screen, from_arrow_schema(SCREENED))


@lru_cache(maxsize=1)
def _open_screener(name: str) -> Screener:
    """Open a shipped screener, once a worker process."""
    return load_screener(Path(SparkFiles.get(name)))
