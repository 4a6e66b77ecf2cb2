"""How a day's categories and scores differ from those of the last day published before it."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812

from jobs.session import local_uri
from schemas.categories import Decision
from seer_model import tracking
from seer_model.drift import measure_drift, psi_terms

__all__ = ["DISTRIBUTIONS", "SCORE_BINS", "Day", "compare_days", "drift_figures", "drift_page"]

log = logging.getLogger(__name__)

DISTRIBUTIONS = ("category", "top_level", "decision", "reject_reason", "score")
"""What is compared: of the categories assigned, the categories and the top ones above them."""
SCORE_BINS = 20
"""From 0 to 1, of the same width."""

_MOST_MOVED = 15


@dataclass(frozen=True)
class Day:
    """A published partition, counted.

    Attributes:
        ds: Which.
        model: What its rows name.
        taxonomy_version: Likewise.
        counts: Listings by value, for each of `DISTRIBUTIONS`; a score's is its bin, from 0. Those
            without a value are left out.
        paths: Of the categories.
    """

    ds: str
    model: str
    taxonomy_version: str
    counts: Mapping[str, Counter[Any]]
    paths: Mapping[str, str]

    @property
    def listings(self) -> int:
        """How many listings it has; each has a decision."""
        return self.counts["decision"].total()


def drift_figures(spark: SparkSession, output: Path, ds: str, bound: float) -> dict[str, Any]:
    """Compare a day just published with the last one before it; log, warn, and never raise.

    Logs `drift.json` and `drift.html` to the current run.

    Args:
        spark: The session.
        output: The categories' folder.
        ds: The day.
        bound: Warn of a population stability index above it.

    Returns:
        For the report: `compared_with`, the earlier day, or None if there is none; `beyond`, what
        lies above the bound; the measures by name, as `category_psi` (see `seer_model.drift`); the
        earlier day's model where it was another; or `problem`, where all this could not be had.
    """
    try:
        earlier = _day_before(output, ds)
        if earlier is None:
            log.info("drift: no day before %s is published: nothing to compare with", ds)
            return {"compared_with": None}
        drift = compare_days(*(_count(spark, output, day) for day in (earlier, ds)))
        beyond = [
            name for name, found in drift["measures"].items() if found and found["psi"] > bound
        ]
        tracking.log_text(json.dumps(drift, indent=1), "drift.json")
        tracking.log_text(drift_page(drift, bound), "drift.html")
    except Exception as error:
        problem = tracking.one_line(error)
        log.warning("drift of %s not measured: %s", ds, problem)
        return {"problem": problem}
    changed = drift["before"]["model"] != drift["after"]["model"]
    if beyond:
        found = ", ".join(f"{name} {drift['measures'][name]['psi']:.2f}" for name in beyond)
        cause = f"; the model was another, {drift['before']['model']}" if changed else ""
        log.warning("drift since %s: PSI above %g of %s%s", earlier, bound, found, cause)
    return {
        "compared_with": earlier,
        "beyond": beyond,
        **({"other_model": drift["before"]["model"]} if changed else {}),
        **{
            f"{name}_{measure}": round(value, 4)
            for name, found in drift["measures"].items()
            for measure, value in (found or {}).items()
            if value is not None and measure != "psi_with_chance"
        },
    }


def _day_before(output: Path, ds: str) -> str | None:
    days = [path.name.removeprefix("ds=") for path in output.glob("ds=*") if path.exists()]
    return max((day for day in days if _is_date(day) and day < ds), default=None)


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _count(spark: SparkSession, output: Path, ds: str) -> Day:
    # The run behind the link: what another run publishes meanwhile does not get mixed in.
    rows = spark.read.parquet(local_uri((output / f"ds={ds}").resolve()))
    # Of null and a number, the least is the number.
    score = F.col("score").cast("double")
    bins = F.when(score.isNotNull(), F.least(F.floor(score * SCORE_BINS), F.lit(SCORE_BINS - 1)))
    origin = ("model_name", "model_version", "taxonomy_version")
    groups = (
        rows.groupBy(
            F.col("category_id").alias("category"),
            F.array_join("category_path", " > ").alias("path"),
            F.get("category_path", F.lit(0)).alias("top_level"),
            "decision",
            "reject_reason",
            bins.cast("int").alias("score"),
            *origin,
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
    return Day(
        ds,
        ", ".join(sorted({f"{g['model_name']} version {g['model_version']}" for g in groups})),
        ", ".join(sorted({g["taxonomy_version"] for g in groups})),
        counts,
        {group["category"]: group["path"] for group in groups},
    )


def compare_days(before: Day, after: Day) -> dict[str, Any]:
    """All there is to know of how two days differ, as JSON has it.

    Returns:
        `before` and `after` (day, listings, model, taxonomy), `measures` (of each of
        `DISTRIBUTIONS`: a `seer_model.drift.Drift`, or None where a day has none), `decisions` and
        `scores` (listings of each day by decision, and by bin) and `moved_most` (categories).
    """
    measures = {}
    for name in DISTRIBUTIONS:
        values = sorted(before.counts[name] | after.counts[name])
        found = measure_drift(
            *(_array(day, name, values) for day in (before, after)), ordered=name == "score"
        )
        measures[name] = found and asdict(found)
    days = {"before": before, "after": after}
    return {
        **{
            role: {
                "ds": day.ds,
                "listings": day.listings,
                "model": day.model,
                "taxonomy_version": day.taxonomy_version,
            }
            for role, day in days.items()
        },
        "measures": measures,
        "decisions": {
            decision.value: {role: day.counts["decision"][decision] for role, day in days.items()}
            for decision in Decision
        },
        "scores": {
            role: _array(day, "score", range(SCORE_BINS)).tolist() for role, day in days.items()
        },
        "moved_most": _moved_most(before, after),
    }


def _array(day: Day, name: str, values: Iterable[Any]) -> npt.NDArray[np.int64]:
    return np.array([day.counts[name][value] for value in values], np.int64)


def _moved_most(before: Day, after: Day) -> list[dict[str, Any]]:
    categories = sorted(before.counts["category"] | after.counts["category"])
    counts = [_array(day, "category", categories) for day in (before, after)]
    if not all(day.sum() for day in counts):
        return []
    terms = psi_terms(*counts)
    return [
        {
            "category_id": categories[i],
            "path": after.paths.get(categories[i]) or before.paths[categories[i]],
            "before": int(counts[0][i]),
            "after": int(counts[1][i]),
            "share_before": float(counts[0][i] / counts[0].sum()),
            "share_after": float(counts[1][i] / counts[1].sum()),
            "psi_term": float(terms[i]),
        }
        for i in np.argsort(-terms, kind="stable")[:_MOST_MOVED]
    ]


def drift_page(drift: Mapping[str, Any], bound: float) -> str:
    """HTML to read by itself; names from outside are escaped, and the page may load nothing.

    Args:
        drift: As `compare_days` gives.
        bound: What is above it is marked.
    """
    environment = Environment(
        loader=PackageLoader("jobs", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("drift.html.jinja").render(**drift, bound=bound)
