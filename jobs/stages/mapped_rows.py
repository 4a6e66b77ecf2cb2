"""Rows of the tables in another taxonomy, once their categories were looked up."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812

from schemas.categories import CATEGORIES, Decision, ReviewReason
from schemas.category_mapping import CategoryMapping
from schemas.labels import LABELS, LabelDecision

__all__ = ["map_candidates", "mapped_categories", "mapped_labels", "mapped_manifest"]


def map_candidates(rows: DataFrame, names: DataFrame) -> DataFrame:
    """Map the candidates that are one category of the new tree; add up those that became one."""
    one = names.where(F.size("targets") == 1).select(
        "category_id", F.element_at("targets", 1).alias("target")
    )
    best_first = F.sort_array(F.collect_list(F.struct((-F.col("score")).alias("below"), "target")))
    mapped = (
        rows.select("listing_id", F.explode("candidates").alias("candidate"))
        .select("listing_id", "candidate.category_id", "candidate.score")
        .join(F.broadcast(one), "category_id")
        .groupBy("listing_id", "target")
        .agg(F.least(F.sum("score"), F.lit(1.0)).alias("score"))
        .groupBy("listing_id")
        .agg(best_first.alias("mapped"))
    )
    kind = dict(rows.dtypes)["candidates"]
    candidates = F.transform(
        F.coalesce("mapped", F.array()),
        lambda each: F.struct(
            each["target"].alias("category_id"), (-each["below"]).cast("float").alias("score")
        ),
    ).cast(kind)
    return rows.join(mapped, "listing_id", "left").withColumn("candidates", candidates)


def mapped_categories(found: DataFrame, mapping: CategoryMapping, run_id: str) -> DataFrame:
    """Rows of the categories table: an assigned one without a new category needs review."""
    paths = mapping.new.to_table().select(["category_id", "category_path"])
    names = found.sparkSession.createDataFrame(
        pa.table(paths.columns, names=["new_category", "new_path"])
    )
    lost = (F.col("decision") == Decision.ASSIGNED.value) & F.col("new_category").isNull()

    def unless_lost(value: Column, otherwise: str | None) -> Column:
        return F.when(~lost, value).otherwise(F.lit(otherwise))

    changes = {
        "category_id": F.col("new_category"),
        "category_path": F.col("new_path"),
        "decision": unless_lost(F.col("decision"), Decision.NEEDS_REVIEW.value),
        "review_reason": unless_lost(F.col("review_reason"), ReviewReason.NO_MAPPING.value),
        "taxonomy_version": F.lit(mapping.new.version),
        "run_id": F.lit(run_id),
        "categorized_at": F.lit(datetime.now(UTC)),
    }
    joined = found.join(F.broadcast(names), "new_category", "left").withColumns(changes)
    return joined.select(*CATEGORIES.names)


def mapped_manifest(found: DataFrame) -> DataFrame:
    """Rows of the manifest: a label without a counterpart is dropped."""
    mapped = found.withColumn("category_id", F.col("new_category"))
    columns = [name for name in found.columns if name not in ("outcome", "targets", "new_category")]
    return mapped.select(columns)


def mapped_labels(found: DataFrame, mapping: CategoryMapping) -> pa.Table:
    """Decisions in the new tree; one for a category without a counterpart is left out."""
    is_category = F.col("decision") == LabelDecision.CATEGORY.value
    kept = found.where(~is_category | F.col("new_category").isNotNull())
    changes: Mapping[str, Column] = {
        "category_id": F.col("new_category"),
        "taxonomy_version": F.lit(mapping.new.version),
    }
    columns = [name for name in LABELS.names if name != "run_id"]
    return kept.withColumns(dict(changes)).select(columns).toArrow()
