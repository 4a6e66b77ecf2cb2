"""Categorize a column of photos, or of listings with several photos, in a notebook or in SQL.

from jobs.udf import categorize_udf

categorize = categorize_udf("models:/listing-categorizer@champion")
frame.select("id", categorize("photo").alias("category")).select("id", "category.*")

spark.udf.register("categorize", categorize)
spark.sql("SELECT id, categorize(photo).category_id FROM photos")
spark.sql("SELECT id, categorize(collect_list(photo)) FROM photos GROUP BY id")
"""

import functools
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import Column, SparkSession
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.stages.worker import is_retry, load_embedder, load_scorer, ship_model, task_device
from schemas.errors import DataContractError, SettingsError
from seer_model.categorizer.categorizer import Categorizer
from seer_model.categorizer.scoring import SCORES
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.source import PhotoSource
from seer_model.tracking import registry, runs

__all__ = ["categorize_udf"]

_LISTINGS_A_BATCH = 256
_TAKES = "categorize takes one column: photos (binary or string), or arrays of a listing's photos"
_COLUMNS = ("decision", "category_id", "category_path", "score", "candidates", "reject_reason")


def categorize_udf(
    model_uri: str,
    tracking_uri: str | None = None,
    limits: PhotoLimits = PhotoLimits(),  # noqa: B008 - frozen
) -> Any:
    """Return a pandas UDF that categorizes each row's photo, or photos, as a listing.

    The model is resolved and sent to the executors once; each Python worker loads it once. A row
    is scored as `jobs.categorize_listings` scores a listing of these photos: a null in an array is
    a photo that is missing, a null or empty row is rejected as `no_photo`.

    The function is nondeterministic to Spark, which would otherwise evaluate it, and read every
    photo, again for a filter on its result. So it cannot be part of a join's condition: select it
    into a column first.

    Args:
        model_uri: `models:/name@alias`, `models:/name/3`, `runs:/…` or a bundle's folder.
        tracking_uri: MLflow's; default MLFLOW_TRACKING_URI, or `mlflow.db` in this folder.
        limits: Which photos may be read.

    Returns:
        A function of one column (binary, string, or an array of either) to a struct of decision,
        category_id, category_path, score, candidates and reject_reason, as in the categories
        table. Called with several columns it raises TypeError; in SQL, or with a column of another
        type, the query fails with DataContractError.

    Raises:
        SettingsError: There is no active Spark session, or no such model.
        BundleError: The model is damaged.
    """
    spark = SparkSession.getActiveSession()
    if spark is None:
        raise SettingsError("categorize_udf needs an active Spark session")
    runs.connect(tracking_uri)
    model = registry.resolve_bundle(model_uri)
    name = ship_model(spark, model.folder, model.bundle.digest)
    result = from_arrow_schema(
        pa.schema([SCORES.field(column).with_nullable(True) for column in _COLUMNS])
    )

    @pandas_udf(result)  # type: ignore[call-overload,untyped-decorator]
    def categorize(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        embedder = load_embedder(name, task_device().torch_name, limits)
        categorizer = Categorizer(load_scorer(name), embedder)
        sizes: deque[int] = deque()

        def sources() -> Iterator[PhotoSource]:
            for column in batches:
                for photos in _listings(column):
                    sizes.append(len(photos))
                    yield from photos

        embedded = embedder.embed(sources(), isolated=is_retry())
        listings = ([first, *islice(embedded, sizes.popleft() - 1)] for first in embedded)
        while batch := list(islice(listings, _LISTINGS_A_BATCH)):
            scores = categorizer.score(
                [str(number) for number, photos in enumerate(batch) for _ in photos],
                [index for photos in batch for index in range(len(photos))],
                [photo for photos in batch for photo in photos],
            )
            yield pd.DataFrame({column: scores.column(column).to_pylist() for column in _COLUMNS})

    function = categorize.asNondeterministic()

    @functools.wraps(function)  # With what `spark.udf.register` looks for.
    def one_column(*columns: Column | str) -> Column:
        if len(columns) != 1:
            raise TypeError(f"{_TAKES}, not {len(columns)} columns")
        result: Column = function(*columns)
        return result

    return one_column


def _listings(column: object) -> Iterator[list[PhotoSource]]:
    """Yield the photos of each row, at least one; without any, the row is one missing photo."""
    if not isinstance(column, pd.Series):
        given = f"{len(column)} columns" if isinstance(column, tuple) else "a struct"
        raise DataContractError(f"{_TAKES}, not {given}")
    if column.dtype != object:
        raise DataContractError(f"{_TAKES}, not one of {column.dtype}")
    for value in column:
        photos = value if isinstance(value, np.ndarray | list) else [value]
        yield [_source(photo) for photo in photos] or [_source(None)]


def _source(photo: object) -> PhotoSource:
    if isinstance(photo, str):
        return PhotoSource(photo, None)
    if photo is None or isinstance(photo, bytes | bytearray):
        return PhotoSource(None, None if photo is None else bytes(photo))
    raise DataContractError(f"{_TAKES}, not one with a {type(photo).__name__}")
