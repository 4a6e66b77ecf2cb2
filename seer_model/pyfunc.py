"""The MLflow model: this file is logged as it is ("models from code"), so nothing is pickled."""

import os
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from seer_model.bundle import load_bundle
from seer_model.categorizer import Categorizer
from seer_model.embedder import PhotoEmbedder
from seer_model.photo_source import PhotoSource

__all__ = ["ListingCategorizer"]


class ListingCategorizer(PythonModel):
    """Takes a row a photo and gives a row a listing, in the order of first appearance."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the bundle that the model version holds."""
        bundle = load_bundle(Path(context.artifacts["bundle"]))
        embedder = PhotoEmbedder.open(bundle.backbone, threads=os.cpu_count() or 1)
        self._categorizer = Categorizer(bundle, embedder)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """Categorize listings.

        Args:
            context: Unused; the bundle was read by `load_context`.
            model_input: Columns `listing_id` (string) and `image_bytes` or `image_uri`; where
                `image_index` is missing photos are numbered in their order.
            params: Unused.

        Returns:
            The columns of `seer_model.scoring.SCORES`.
        """
        photos = model_input.reset_index(drop=True)
        nothing = pd.Series([None] * len(photos), dtype=object)
        uris = photos.get("image_uri", nothing).astype(object)
        data = photos.get("image_bytes", nothing).astype(object)
        order = photos.groupby("listing_id").cumcount()
        scores = self._categorizer.categorize(
            photos["listing_id"].tolist(),
            photos.get("image_index", order).tolist(),
            [
                PhotoSource(u if isinstance(u, str) else None, d if isinstance(d, bytes) else None)
                for u, d in zip(uris, data, strict=True)
            ],
        )
        frame: pd.DataFrame = scores.to_pandas()
        return frame


mlflow.models.set_model(ListingCategorizer())
