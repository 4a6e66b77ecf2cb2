"""Compare a day's categories and scores with those of the last day published before it."""

import json
import logging
from collections import Counter
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from jobs.stages.publish.base import Output
from schemas.categories import ReviewReason
from seer_model.evaluation.drift import DISTRIBUTIONS, SCORE_BINS, DayCounts, compare_days
from seer_model.tracking import runs

__all__ = ["drift_figures"]

log = logging.getLogger(__name__)

_DAYS = 14


def drift_figures(spark: SparkSession, output: Output, ds: str, bound: float) -> dict[str, Any]:
    """Compare a day just published with the last one before it; warn of drift, and never raise.

    Logs `drift.json` and `drift.html` to the current run.

    Args:
        spark: The session.
        output: Where categories are published.
        ds: The day.
        bound: Warn of a population stability index above it.

    Returns:
        For the report: `compared_with`, the earlier day, or None if there is none; `beyond`, the
        distributions whose index is above the bound; the measures by name, such as `category_psi`
        (see `Drift`); `other_model`, the earlier day's model if it was another. If the comparison
        failed, only `problem`.
    """
    try:
        earlier = output.day_before(spark, ds)
        if earlier is None:
            log.info("drift: no day before %s is published; nothing to compare with", ds)
            return {"compared_with": None}
        from jobs.pages.drift import drift_page  # noqa: PLC0415 - matplotlib

        drift = compare_days(_count(spark, output, earlier), _count(spark, output, ds))
        drift["days"] = _count_unfamiliar(spark, output, ds)
        runs.log_text(json.dumps(drift, indent=1), "drift.json")
        runs.log_text(drift_page(drift, bound), "drift.html")
    except Exception as error:
        problem = runs.one_line(error)
        log.warning("drift of %s not measured: %s", ds, problem)
        return {"problem": problem}
    measures = {name: found for name, found in drift["measures"].items() if found}
    beyond = [name for name, found in measures.items() if found["psi"] > bound]
    changed = drift["before"]["model"] != drift["after"]["model"]
    if beyond:
        _warn(drift, beyond, bound, changed=changed)
    return {
        "compared_with": earlier,
        "beyond": beyond,
        **({"other_model": drift["before"]["model"]} if changed else {}),
        **{
            f"{name}_{measure}": round(value, 4)
            for name, found in measures.items()
            for measure, value in found.items()
            if value is not None and measure != "psi_with_chance"
        },
    }


def _count(spark: SparkSession, output: Output, ds: str) -> DayCounts:
    rows = _read(spark, output, ds)
    score = F.col("score").cast("double")
    # Without `when`, a null score would land in the last bin: `least` ignores nulls.
    bins = F.when(score.isNotNull(), F.least(F.floor(score * SCORE_BINS), F.lit(SCORE_BINS - 1)))
    groups = (
        rows.groupBy(
            F.col("category_id").alias("category"),
            F.array_join("category_path", " > ").alias("path"),
            F.get("category_path", F.lit(0)).alias("top_level"),
            "decision",
            "review_reason",
            "reject_reason",
            bins.cast("int").alias("score"),
            "model_name",
            "model_version",
            "taxonomy_version",
        )
        .count()
        .toArrow()
        .to_pylist()
    )
    counts: dict[str, Counter[Any]] = {name: Counter() for name in DISTRIBUTIONS}
    for group in groups:
        for name in DISTRIBUTIONS:
            if group[name] is not None:
                counts[name][group[name]] += group["count"]
    return DayCounts(
        ds,
        ", ".join(sorted({f"{g['model_name']} version {g['model_version']}" for g in groups})),
        ", ".join(sorted({g["taxonomy_version"] for g in groups})),
        counts,
        {group["category"]: group["path"] for group in groups},
    )


def _count_unfamiliar(spark: SparkSession, output: Output, ds: str) -> list[dict[str, Any]]:
    """Listings, and how many of them are unfamiliar, of the last days published, the last first."""
    days = [ds]
    while len(days) < _DAYS and (earlier := output.day_before(spark, days[-1])):
        days.append(earlier)
    reasons = [
        _read(spark, output, day).select(F.lit(day).alias("ds"), "review_reason") for day in days
    ]
    unfamiliar = F.count_if(F.col("review_reason") == ReviewReason.UNFAMILIAR.value)
    counts = (
        reduce(DataFrame.union, reasons)
        .groupBy("ds")
        .agg(F.count("*").alias("listings"), unfamiliar.alias("unfamiliar"))
    )
    return sorted(counts.toArrow().to_pylist(), key=lambda day: day["ds"], reverse=True)


def _read(spark: SparkSession, output: Output, ds: str) -> DataFrame:
    rows = output.read(spark, ds)
    if "review_reason" not in rows.columns:  # Published before there was one.
        rows = rows.withColumn("review_reason", F.lit(None).cast("string"))
    return rows


def _warn(drift: dict[str, Any], beyond: list[str], bound: float, *, changed: bool) -> None:
    found = ", ".join(f"{name} {drift['measures'][name]['psi']:.2f}" for name in beyond)
    cause = f"; the model changed: it was {drift['before']['model']}" if changed else ""
    log.warning("drift since %s: PSI above %g of %s%s", drift["before"]["ds"], bound, found, cause)
