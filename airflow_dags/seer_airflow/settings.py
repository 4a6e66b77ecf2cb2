"""Settings of a deployment, from environment variables; the UI can change most of them for one run.

Every name below is an environment variable with the prefix SEER_AIRFLOW_. (The jobs themselves read
variables with the prefix SEER_, but none of these.)
"""

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, Param

_CHECKOUT = Path(__file__).parents[2]


def _setting(name: str, default: object) -> str:
    return os.environ.get(f"SEER_AIRFLOW_{name}") or str(default)


JOBS = _setting("JOBS", _CHECKOUT / "jobs")
"""Folder of the jobs' modules, on Airflow's workers."""
PY_FILES = _setting("PY_FILES", _CHECKOUT / "dist" / "seer-categories.zip")
"""The zip that `make package` builds, on Airflow's workers."""
ARCHIVES = _setting("ARCHIVES", "")
"""For `--archives`: the environment that `make package` builds, such as `hdfs:///…#environment`."""
SPARK_CONF: dict[str, str] = json.loads(_setting("SPARK_CONF", "{}"))
"""Settings of Spark for all jobs, as JSON."""
REPORTS = _setting("REPORTS", "/data/reports")
"""Folder or address (`s3://…`) for reports, which drivers and Airflow's workers reach."""
METRICS = _setting("METRICS", "")
"""Folder of node_exporter's textfile collector, on Airflow's workers; empty for no metrics."""
SPARK_CONNECTION = _setting("SPARK_CONNECTION", "spark_default")
DAILY_CRON = _setting("DAILY_CRON", "0 2 * * *")
WEEKLY_CRON = _setting("WEEKLY_CRON", "0 4 * * 0")
POKE_INTERVAL = float(_setting("POKE_SECONDS", 300))
"""Seconds between two looks for the partition."""

TASKS: dict[str, Any] = {
    "retries": 6,
    "retry_delay": timedelta(seconds=float(_setting("RETRY_SECONDS", 300))),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(hours=1),
}
"""Defaults of every task. With 300 s, its seven tries spread over more than three hours."""

MANIFEST = Asset("listing_manifest")
CATEGORIES = Asset("listing_categories")
CHAMPION = Asset("listing_categorizer_champion")


def _param(name: str, default: str | None, description: str, empty: str | None = None) -> Param:
    """Make a string parameter; `empty` says what an empty value means, None forbids one."""
    value = os.environ.get(f"SEER_AIRFLOW_{name.upper()}") or default
    if empty is None:
        return Param(value, type="string", title=name, description=description)
    description = f"{description} Empty: {empty}."
    return Param(value, type=["null", "string"], title=name, description=description)


def param(name: str, *also: str) -> str:
    """Template that renders a parameter's value, or nothing if it, or one of others, is empty."""
    condition = " and ".join(f"params.{each}" for each in (name, *also))
    return f"{{{{ params.{name} if {condition} else '' }}}}"


_SHARED = {
    "manifest": _param(
        "manifest", "/data/manifest", "Manifest, a folder or a table partitioned by ds."
    ),
    "taxonomy": _param("taxonomy", "/data/taxonomy.csv", "Taxonomy of the labels."),
    "reviews": _param("reviews", None, "Folder of the review queues.", "nobody is asked"),
    "label_studio": _param(
        "label_studio",
        None,
        "Address of the Label Studio that shows the queues; LABEL_STUDIO_API_KEY where the driver "
        "runs.",
        "queues are not sent, and decisions not fetched",
    ),
    "embeddings": _param(
        "embeddings",
        "/data/embeddings",
        "Embedding store, a folder or a table, so that no photo is embedded twice.",
        "none",
    ),
    "labels": _param(
        "labels",
        "/data/labels",
        "What people decided, a folder or a table: wins over the model and the manifest.",
        "none",
    ),
    "scratch": _param(
        "scratch",
        None,
        "Folder for what is needed during a run, reached by all machines.",
        "beside the output or the store, where that is a folder",
    ),
    "tracking_uri": _param(
        "tracking_uri", None, "MLflow.", "MLFLOW_TRACKING_URI where the driver runs"
    ),
}
DAILY_PARAMS = {
    "ds": Param(
        None,
        type=["null", "string"],
        format="date",
        title="ds",
        description="Partition to categorize. Empty: the one that the manifest's event names, "
        "else the run's date (UTC).",
    ),
    "output": _param(
        "output", "/data/categories", "Folder or table for the categories, partitioned by ds."
    ),
    "model": _param(
        "model", "models:/listing-categorizer@champion", "models:/…, runs:/… or a bundle's folder."
    ),
    "screening": _param(
        "screening",
        None,
        "Folder or table for what may be shown; the text of new photos is read, which takes 23 "
        "times as long as embedding them.",
        "listings are not screened",
    ),
    "rules": _param(
        "rules", None, "TOML file of rules for text in photos.", "the default of screen_listings"
    ),
    "screener": _param(
        "screener",
        None,
        "Model of concepts, such as models:/listing-screener@champion.",
        "no concept is looked for",
    ),
    "known_photos": _param(
        "known_photos", None, "List of photos that must not come back.", "none is known"
    ),
    "descriptions": _param(
        "descriptions",
        None,
        "Folder or table for alternative texts; the text in new photos is read, as for screening.",
        "photos are not described",
    ),
    "locales": _param("locales", "en", "Languages of the texts, separated by commas."),
    "names": _param(
        "names",
        None,
        "LANGUAGE=FILE of the taxonomy in other languages, separated by commas.",
        "the model's own names",
    ),
    "attributes": _param(
        "attributes", None, "Models of attributes, separated by commas.", "none is described"
    ),
    "photo_folder": _param(
        "photo_folder", None, "Local folder whose photos Label Studio may show.", "none"
    ),
    **_SHARED,
}
WEEKLY_PARAMS = {
    "labelled": _param(
        "labelled", "/data/labelled", "Manifest with labels and splits, a folder or a table."
    ),
    "splits": _param("splits", "test", "Splits to evaluate on, separated by commas."),
    "backbone": _param("backbone", None, "Backbone to train on.", "the default of train_head"),
    "name": _param("name", "listing-categorizer", "Name of the model in the registry."),
    "screener_name": _param(
        "screener_name", None, "Name of the screener in the registry.", "none is trained"
    ),
    "concept_labels": _param(
        "concept_labels",
        None,
        "CSV of what photos show: listing_id, image_index, concept, value.",
        "the column concepts of the labelled manifest",
    ),
    "gates": _param("gates", None, "File of the gates.", "the default of promote_challenger"),
    **_SHARED,
}
