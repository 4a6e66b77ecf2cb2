"""Describe photos on Spark: listings with what is known of them to one row a photo and locale."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
from pyspark import SparkFiles
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import from_arrow_schema

from schemas.categories import Decision
from seer_model.describer.describer import DESCRIBED, Describer, load_describer

__all__ = ["describe_photos"]


def describe_photos(
    photos: DataFrame, categories: DataFrame, attributes: Mapping[str, DataFrame], describer: str
) -> DataFrame:
    """Describe each photo in each language.

    Args:
        photos: listing_id, image_index, reject_reason, and `colours` and `text` where they were
            read; one row a photo.
        categories: Of the schema `seer_model.categorizer.scoring.SCORES`, one row a listing.
        attributes: The same of the model of each attribute, by its name.
        describer: Name of the describer, from `ship_model`.

    Returns:
        `DESCRIBED`, a row for each row of `photos` and language.
    """
    read = [name for name in ("colours", "text") if name in photos.columns]
    photo = F.struct("image_index", "reject_reason", *read)
    listings = photos.groupBy("listing_id").agg(F.collect_list(photo).alias("photos"))
    listings = listings.join(_assigned(categories, "category_id", "score"), "listing_id", "left")
    names = []
    for number, (name, scores) in enumerate(attributes.items()):
        value, score = f"value_{number}", f"score_{number}"
        listings = listings.join(_assigned(scores, value, score), "listing_id", "left")
        found = F.struct(F.lit(name).alias("name"), F.col(value).alias("value"), F.col(score))
        names.append(found.cast("struct<name: string, value: string, score: float>"))
    none = F.array().cast("array<struct<name: string, value: string, score: float>>")
    known = F.filter(F.array(*names), lambda each: each.value.isNotNull()) if names else none
    listings = listings.select(
        "listing_id", "photos", "category_id", "score", known.alias("attributes")
    )

    def describe(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        opened = _open_describer(describer)
        for batch in batches:
            yield opened.rows(batch.to_pylist())

    return listings.mapInArrow(describe, from_arrow_schema(DESCRIBED))


def _assigned(scores: DataFrame, value: str, score: str) -> DataFrame:
    """What was assigned, and how surely."""
    return scores.where(F.col("decision") == Decision.ASSIGNED.value).select(
        "listing_id", F.col("category_id").alias(value), F.col("score").alias(score)
    )


@lru_cache(maxsize=1)
def _open_describer(name: str) -> Describer:
    """Open a shipped describer, once a worker process."""
    return load_describer(Path(SparkFiles.get(name)))
