"""A backbone as an MLflow model; the file itself is logged ("models from code"), not pickled."""

import os
from pathlib import Path
from threading import Lock
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from schemas.errors import SeerError
from seer_model.backbones.backbone import load_backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.tracking.photo_table import READ_IMAGE_URIS, photo_rows, photo_sources

__all__ = ["ListingBackbone"]


class ListingBackbone(PythonModel):
    """Embeds photos: a row per photo in, a row per photo out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the version's backbone."""
        backbone = load_backbone(Path(context.artifacts["backbone"]))
        self._embedder = PhotoEmbedder.open(backbone, threads=os.cpu_count() or 1)
        self._read_uris = (context.model_config or {}).get(READ_IMAGE_URIS) is True
        # A server predicts on several threads; one at a time bounds the peak memory.
        self._lock = Lock()

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """Embed photos.

        Args:
            context: Unused; `load_context` loaded the backbone.
            model_input: A column `image_bytes` (bytes or base64), or `image_uri` if the model may
                read it.
            params: Unused.

        Returns:
            `vector`, a list of numbers, and `reject_reason`; one of the two is None.

        Raises:
            MlflowException: A column is missing or a value unusable, see `photo_table`.
        """
        try:
            rows = photo_rows(model_input)
            sources = photo_sources(rows, read_uris=self._read_uris)
        except SeerError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        with self._lock:
            photos = list(self._embedder.embed(sources))
        embedded = [
            (
                None if p.vector is None else p.vector.tolist(),
                p.reject_reason and str(p.reject_reason),
            )
            for p in photos
        ]
        return pd.DataFrame(embedded, columns=["vector", "reject_reason"], index=rows.index)


mlflow.models.set_model(ListingBackbone())
