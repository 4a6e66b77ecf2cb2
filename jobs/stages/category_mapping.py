"""Map a column of categories from one taxonomy to another, on Spark."""

from collections.abc import Collection, Iterable

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from schemas.category_mapping import CategoryMapping, Outcome
from schemas.taxonomy import Taxonomy

__all__ = ["CHOSEN", "choose_by_score", "mapped_names", "with_mapping"]

CHOSEN = "chosen"
"""The column of what was chosen of several categories."""


def mapped_names(
    spark: SparkSession, mapping: CategoryMapping, categories: Collection[str]
) -> DataFrame:
    """What the mapping says of some categories: `category_id`, `outcome`, `targets`."""
    found = {name: mapping.find(name) for name in sorted(categories)}
    return spark.createDataFrame(
        pa.table(
            {
                "category_id": pa.array(found, pa.string()),
                "outcome": pa.array([kind.value for kind, _ in found.values()]),
                "targets": pa.array([names for _, names in found.values()], pa.list_(pa.string())),
            }
        )
    )


def with_mapping(rows: DataFrame, names: DataFrame, chosen: DataFrame | None) -> DataFrame:
    """Add `outcome`, `targets` and `new_category` to rows; all null without a category.

    Args:
        rows: With `listing_id` and `category_id`.
        names: From `mapped_names`, of all categories that occur.
        chosen: From `choose_by_score`, or None.
    """
    found = rows.join(F.broadcast(names), "category_id", "left")
    if chosen is None:
        found = found.withColumn(CHOSEN, F.lit(None).cast("string"))
    else:
        found = found.join(chosen, "listing_id", "left")
    is_chosen = (F.col("outcome") == Outcome.AMBIGUOUS.value) & F.array_contains(
        "targets", F.col(CHOSEN)
    )
    one = F.when(F.size("targets") == 1, F.element_at("targets", 1))
    return (
        found.withColumn("new_category", F.when(is_chosen, F.col(CHOSEN)).otherwise(one))
        .withColumn(
            "outcome", F.when(is_chosen, Outcome.BY_SCORE.value).otherwise(F.col("outcome"))
        )
        .drop(CHOSEN)
    )


def choose_by_score(
    scores: DataFrame, asked: DataFrame, taxonomy: Taxonomy, least_share: float
) -> DataFrame:
    """Of several categories choose the one that a model of the new tree is sure of.

    A category's score is the sum of those of the best five classes at or below it; it is chosen if
    it is at least `least_share` of all the targets' scores together.

    Args:
        scores: `listing_id` and `candidates`, from `score_photos`.
        asked: `listing_id` and `targets`.
        taxonomy: The new tree.
        least_share: From 0 to 1.

    Returns:
        `listing_id`, once, and `chosen`; only listings for which one is sure.
    """
    above = _with_ancestors(scores.sparkSession, taxonomy)
    by_target = (
        scores.select("listing_id", F.explode("candidates").alias("candidate"))
        .select("listing_id", "candidate.category_id", "candidate.score")
        .join(F.broadcast(above), "category_id")
        .groupBy("listing_id", "at")
        .agg(F.sum("score").alias("score"))
        .join(asked.select("listing_id", F.explode("targets").alias("at")), ["listing_id", "at"])
    )
    best = F.max(F.struct("score", "at"))
    return (
        by_target.groupBy("listing_id")
        .agg(best.alias("best"), F.sum("score").alias("all"))
        .where(F.col("best.score") >= least_share * F.col("all"))
        .select("listing_id", F.col("best.at").alias(CHOSEN))
    )


def _with_ancestors(spark: SparkSession, taxonomy: Taxonomy) -> DataFrame:
    """Each category, `at` itself and at every category above it."""

    def pairs() -> Iterable[tuple[str, str]]:
        for category in taxonomy:
            for at in (*taxonomy.ancestors(category.category_id), category.category_id):
                yield category.category_id, at

    own, at = zip(*pairs(), strict=True)
    return spark.createDataFrame(pa.table({"category_id": own, "at": at}))
