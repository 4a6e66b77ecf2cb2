"""The MLflow model: this file is logged as it is ("models from code"), so nothing is pickled."""

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
from seer_model.bundle import load_bundle
from seer_model.categorizer import Categorizer
from seer_model.embedder import PhotoEmbedder
from seer_model.photo_table import READ_IMAGE_URIS, listing_ids, photo_sources

__all__ = ["ListingCategorizer"]


class ListingCategorizer(PythonModel):
    """Takes a row a photo and gives a row a listing, in the order of first appearance."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the bundle that the model version holds."""
        bundle = load_bundle(Path(context.artifacts["bundle"]))
        embedder = PhotoEmbedder.open(bundle.backbone, threads=os.cpu_count() or 1)
        self._categorizer = Categorizer(bundle, embedder)
        self._read_uris = (context.model_config or {}).get(READ_IMAGE_URIS) is True
        # A server asks from several threads at once. In turn, they need the memory of one.
        self._turn = Lock()

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """Categorize listings.

        Args:
            context: Unused; the bundle was read by `load_context`.
            model_input: Columns `listing_id` (string) and `image_bytes`, or `image_uri` where that
                was allowed; where `image_index` is missing photos are numbered in their order.
            params: Unused.

        Returns:
            The columns of `seer_model.scoring.SCORES`, as JSON can have them: None for what is
            missing, and `image_rejects` by the index as a string.

        Raises:
            MlflowException: A column or value cannot be used, see `photo_table`.
        """
        try:
            listings = listing_ids(model_input)
            sources = photo_sources(model_input, read_uris=self._read_uris)
        except SeerError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        order = model_input.groupby("listing_id").cumcount()
        indexes = model_input.get("image_index", order).tolist()
        with self._turn:
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
