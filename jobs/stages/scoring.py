"""Score listings on Spark: embedded photos to one row a listing."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.stages.worker import load_scorer
from seer_model.categorizer.scoring import SCORES, score_listings

__all__ = ["score_photos"]


def score_photos(photos: DataFrame, model: str) -> DataFrame:
    """Fuse each listing's photos and decide its category.

    Args:
        photos: listing_id, image_index, vector and reject_reason, one row a photo.
        model: Name of the bundle, from `ship_model`.

    Returns:
        `seer_model.categorizer.scoring.SCORES`, one row a distinct listing.
    """

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        bundle = load_scorer(model)
        for batch in batches:
            yield score_listings(bundle, batch)

    listings = photos.groupBy("listing_id").agg(
        F.collect_list(F.struct("image_index", "vector", "reject_reason")).alias("photos")
    )
    return listings.mapInArrow(score, from_arrow_schema(SCORES))
