"""Let what people decided win over a model's scores."""

import logging

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.stages.decisions import WITHDRAWN
from schemas.categories import DECIDED_BY_MODEL, Decision, ReviewReason
from schemas.labels import LabelDecision
from schemas.taxonomy import Taxonomy

__all__ = ["decide_by_people", "outside_taxonomy"]

log = logging.getLogger(__name__)


def decide_by_people(
    scores: DataFrame, decisions: DataFrame | None, taxonomy: Taxonomy
) -> DataFrame:
    """Put what people decided in the place of the model's decisions, and say who decided.

    A listing that was given a category of the taxonomy is assigned it, even if no photo can be
    read. One that is of none (not in the taxonomy, bad photos, a violation) needs review. Of one
    that the reviewer was unsure of nothing changes.

    Args:
        scores: Of the schema `seer_model.categorizer.scoring.SCORES`, one row a listing.
        decisions: From `jobs.stages.decisions.decided_now`.
        taxonomy: The model's.

    Returns:
        The scores, and `decided_by`: `model`, or the decision's source.
    """
    if decisions is None:
        return scores.withColumn("decided_by", F.lit(DECIDED_BY_MODEL))
    decided = decisions.select(
        "listing_id",
        F.col("decision").alias("its_decision"),
        F.col("category_id").alias("its_category"),
        F.col("source").alias("its_source"),
    ).join(_paths(scores, taxonomy), "its_category", "left")
    given = F.col("its_path").isNotNull()
    withdrawn = F.col("its_decision").isin(WITHDRAWN) & (
        F.col("decision") != Decision.REJECTED.value
    )
    changes = {
        "decision": (F.lit(Decision.ASSIGNED.value), F.lit(Decision.NEEDS_REVIEW.value)),
        "category_id": (F.col("its_category"), F.lit(None)),
        "category_path": (F.col("its_path"), F.lit(None)),
        # A person's decision has no calibrated probability.
        "score": (F.lit(None), F.col("score")),
        "review_reason": (F.lit(None), F.lit(ReviewReason.NO_CATEGORY.value)),
        "reject_reason": (F.lit(None), F.lit(None)),
        "decided_by": (F.col("its_source"), F.col("its_source")),
    }
    joined = scores.withColumn("decided_by", F.lit(DECIDED_BY_MODEL)).join(
        decided, "listing_id", "left"
    )
    changed = {
        name: F.when(given, if_given).when(withdrawn, if_withdrawn).otherwise(F.col(name))
        for name, (if_given, if_withdrawn) in changes.items()
    }
    return joined.withColumns(changed).select(*scores.columns, "decided_by")


def outside_taxonomy(decisions: DataFrame | None, taxonomy: Taxonomy) -> int:
    """How many decisions are for a category that the taxonomy lacks; warns with an example."""
    if decisions is None:
        return 0
    known = _paths(decisions, taxonomy).withColumnRenamed("its_category", "category_id")
    for_category = decisions.where(F.col("decision") == LabelDecision.CATEGORY.value)
    unknown = for_category.join(known, "category_id", "left_anti")
    found = unknown.agg(
        F.count("*").alias("count"), F.min(F.struct("listing_id", "category_id")).alias("example")
    ).collect()[0]
    if found["count"]:
        log.warning(
            "%d decisions are not used, since the model's taxonomy (%s) lacks their category, such "
            "as %r of listing %r",
            *(found["count"], taxonomy.version),
            *(found["example"]["category_id"], found["example"]["listing_id"]),
        )
    return int(found["count"])


def _paths(frame: DataFrame, taxonomy: Taxonomy) -> DataFrame:
    """its_category and its_path, of every category."""
    paths = taxonomy.to_table().select(["category_id", "category_path"])
    return frame.sparkSession.createDataFrame(
        pa.table(paths.columns, names=["its_category", "its_path"])
    )
