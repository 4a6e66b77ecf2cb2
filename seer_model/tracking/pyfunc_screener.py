"""A screener's concepts as an MLflow model; the file itself is logged, not pickled."""

import os
from pathlib import Path
from threading import Lock
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from schemas.errors import SeerError
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.screener.concepts import load_screener_model
from seer_model.screener.rules import Rules
from seer_model.screener.screener import Screener
from seer_model.tracking.photo_table import (
    READ_IMAGE_URIS,
    image_indexes,
    listing_ids,
    photo_rows,
    photo_sources,
)

__all__ = ["ListingScreener"]


class ListingScreener(PythonModel):
    """Screens listings for concepts: a row per photo in, a row per listing out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the version's model."""
        model = load_screener_model(Path(context.artifacts["screener"]))
        self._embedder = PhotoEmbedder.open(model.backbone, threads=os.cpu_count() or 1)
        self._screener = Screener(Rules(), concepts=model.concepts)
        self._read_uris = (context.model_config or {}).get(READ_IMAGE_URIS) is True
        # A server predicts on several threads; one at a time bounds the peak memory.
        self._lock = Lock()

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """Screen listings.

        Args:
            context: Unused; `load_context` loaded the model.
            model_input: As `seer_model.tracking.pyfunc.ListingCategorizer.predict`.
            params: Unused.

        Returns:
            The columns of `screener.SCREENED`, in the listings' order of appearance.

        Raises:
            MlflowException: A column is missing or a value unusable, see `photo_table`.
        """
        try:
            photos = photo_rows(model_input)
            ids, indexes = listing_ids(photos), image_indexes(photos)
            sources = photo_sources(photos, read_uris=self._read_uris)
        except SeerError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        listings: dict[str, list[dict[str, Any]]] = {}
        with self._lock:
            embedded = self._embedder.embed(sources)
        for listing, index, photo in zip(ids, indexes, embedded, strict=True):
            listings.setdefault(listing, []).append(
                {
                    "image_index": index,
                    "vector": None if photo.vector is None else photo.vector.tobytes(),
                    "reject_reason": photo.reject_reason,
                }
            )
        rows = self._screener.rows(list(listings), list(listings.values()))
        return pd.DataFrame(rows.to_pylist(), columns=rows.schema.names)


mlflow.models.set_model(ListingScreener())
