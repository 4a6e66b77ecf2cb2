"""A bundle as an MLflow model; the file itself is logged ("models from code"), not pickled."""

import os
from pathlib import Path
from threading import Lock
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from schemas.errors import SeerError
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.categorizer.bundle import load_bundle
from seer_model.categorizer.categorizer import Categorizer
from seer_model.tracking.photo_table import (
    READ_IMAGE_URIS,
    image_indexes,
    listing_ids,
    photo_rows,
    photo_sources,
)

__all__ = ["ListingCategorizer"]


class ListingCategorizer(PythonModel):
    """Categorizes listings: a row per photo in, a row per listing out, in order of appearance."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the version's bundle."""
        bundle = load_bundle(Path(context.artifacts["bundle"]))
        embedder = PhotoEmbedder.open(bundle.backbone, threads=os.cpu_count() or 1)
        self._categorizer = Categorizer(bundle, embedder)
        self._read_uris = (context.model_config or {}).get(READ_IMAGE_URIS) is True
        # A server predicts on several threads; one at a time bounds the peak memory.
        self._lock = Lock()

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """Categorize listings.

        Args:
            context: Unused; `load_context` loaded the bundle.
            model_input: Columns `listing_id` (string) and `image_bytes` (bytes or base64), or
                `image_uri` if the model may read it. Without a column `image_index`, photos are
                numbered in order.
            params: Unused.

        Returns:
            The columns of `categorizer.scoring.SCORES`, fit for JSON: None for missing values, and
            the keys of `image_rejects`, the image indexes, as strings.

        Raises:
            MlflowException: A column is missing or a value unusable, see `photo_table`.
        """
        try:
            photos = photo_rows(model_input)
            listings, indexes = listing_ids(photos), image_indexes(photos)
            sources = photo_sources(photos, read_uris=self._read_uris)
        except SeerError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        with self._lock:
            scores = self._categorizer.categorize(listings, indexes, sources)
        return _frame(scores)


def _frame(scores: pa.RecordBatch) -> pd.DataFrame:
    frame: pd.DataFrame = scores.to_pandas()
    # JSON has no NaN, and its keys are strings.
    frame["score"] = pd.Series(scores.column("score").to_pylist(), dtype=object)
    frame["image_rejects"] = pd.Series(
        [
            None if rejects is None else {str(index): reason for index, reason in rejects}
            for rejects in scores.column("image_rejects").to_pylist()
        ],
        dtype=object,
    )
    return frame


mlflow.models.set_model(ListingCategorizer())
