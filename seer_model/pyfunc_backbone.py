"""The MLflow model of a backbone, logged as it is ("models from code"): nothing is pickled."""

import os
from pathlib import Path
from threading import Lock
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from schemas.errors import SeerError
from seer_model.backbone import load_backbone
from seer_model.embedder import PhotoEmbedder
from seer_model.photo_table import READ_IMAGE_URIS, photo_sources

__all__ = ["ListingBackbone"]


class ListingBackbone(PythonModel):
    """Takes a row a photo and gives its features."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the backbone that the model version holds."""
        backbone = load_backbone(Path(context.artifacts["backbone"]))
        self._embedder = PhotoEmbedder.open(backbone, threads=os.cpu_count() or 1)
        self._read_uris = (context.model_config or {}).get(READ_IMAGE_URIS) is True
        # A server asks from several threads at once. In turn, they need the memory of one.
        self._turn = Lock()

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """Embed photos.

        Args:
            context: Unused; the backbone was read by `load_context`.
            model_input: A column `image_bytes`, or `image_uri` where that was allowed.
            params: Unused.

        Returns:
            A row a photo: `vector`, a list of numbers, or `reject_reason` in its stead.

        Raises:
            MlflowException: A column or value cannot be used, see `photo_table`.
        """
        try:
            sources = photo_sources(model_input, read_uris=self._read_uris)
        except SeerError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        with self._turn:
            photos = list(self._embedder.embed(sources))
        rows = [
            (
                None if p.vector is None else p.vector.tolist(),
                p.reject_reason and str(p.reject_reason),
            )
            for p in photos
        ]
        return pd.DataFrame(rows, columns=["vector", "reject_reason"], index=model_input.index)


mlflow.models.set_model(ListingBackbone())
