"""Categorize any column of photos, in a notebook or in SQL.

from jobs.udf import categorize_udf

categorize = categorize_udf("models:/listing-categorizer@champion")
frame.select("id", categorize("photo").alias("category")).select("id", "category.*")

spark.udf.register("categorize", categorize)
spark.sql("SELECT id, categorize(photo).category_id FROM photos")
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pandas as pd
import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.worker import is_retry, load_embedder, load_scorer, ship_model, task_device
from schemas.errors import SettingsError
from seer_model import registry
from seer_model.categorizer import Categorizer
from seer_model.photo_source import PhotoSource
from seer_model.photos import PhotoLimits
from seer_model.scoring import SCORES

__all__ = ["categorize_udf"]

_PHOTOS_A_BATCH = 256
_COLUMNS = ("decision", "category_id", "category_path", "score", "candidates", "reject_reason")


def categorize_udf(
    model_uri: str,
    tracking_uri: str | None = None,
    limits: PhotoLimits = PhotoLimits(),  # noqa: B008 - frozen
) -> Any:
    """A pandas UDF that takes one photo, bytes or a URI, as a listing of its own.

    The model is resolved here once and sent to the executors; each Python worker loads it once.

    Args:
        model_uri: `models:/name@alias`, `models:/name/3`, `runs:/…` or a bundle's folder.
        tracking_uri: MLflow's; else MLFLOW_TRACKING_URI, else `mlflow.db` in this folder.
        limits: Which photos may be read: how large, how slow, and from where.

    Returns:
        A function of a binary or string column to a struct with the columns of the categories
        table: decision, category_id, category_path, score, candidates, reject_reason.

    Raises:
        SettingsError: There is no active Spark session, or no such model.
        BundleError: The model is damaged.
    """
    spark = SparkSession.getActiveSession()
    if spark is None:
        raise SettingsError("categorize_udf needs an active Spark session")
    registry.connect(tracking_uri)
    model = registry.resolve_bundle(model_uri)
    name = ship_model(spark, model.folder, model.bundle.digest)
    result = from_arrow_schema(
        pa.schema([SCORES.field(column).with_nullable(True) for column in _COLUMNS])
    )

    @pandas_udf(result)  # type: ignore[call-overload,untyped-decorator]
    def categorize(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        embedder = load_embedder(name, task_device().torch_name, limits)
        categorizer = Categorizer(load_scorer(name), embedder)
        sources = (_source(photo) for photos in batches for photo in photos)
        embedded = embedder.embed(sources, apart=is_retry())
        while photos := list(islice(embedded, _PHOTOS_A_BATCH)):
            scores = categorizer.score(
                [str(i) for i in range(len(photos))], [0] * len(photos), photos
            )
            yield pd.DataFrame({column: scores.column(column).to_pylist() for column in _COLUMNS})

    return categorize


def _source(photo: object) -> PhotoSource:
    if isinstance(photo, str):
        return PhotoSource(photo, None)
    return PhotoSource(None, bytes(photo) if isinstance(photo, bytes | bytearray) else None)
