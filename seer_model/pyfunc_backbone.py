"""The MLflow model of a backbone, logged as it is ("models from code"): nothing is pickled."""

import os
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from seer_model.backbone import load_backbone
from seer_model.embedder import PhotoEmbedder
from seer_model.photo_source import PhotoSource

__all__ = ["ListingBackbone"]


class ListingBackbone(PythonModel):
    """Takes a row a photo and gives its features."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the backbone that the model version holds."""
        backbone = load_backbone(Path(context.artifacts["backbone"]))
        self._embedder = PhotoEmbedder.open(backbone, threads=os.cpu_count() or 1)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """Embed photos.

        Args:
            context: Unused; the backbone was read by `load_context`.
            model_input: A column `image_bytes` or `image_uri`.
            params: Unused.

        Returns:
            A row a photo: `vector`, a list of numbers, or `reject_reason` in its stead.
        """
        nothing = pd.Series([None] * len(model_input), index=model_input.index, dtype=object)
        uris = model_input.get("image_uri", nothing).astype(object)
        data = model_input.get("image_bytes", nothing).astype(object)
        photos = self._embedder.embed(
            PhotoSource(u if isinstance(u, str) else None, d if isinstance(d, bytes) else None)
            for u, d in zip(uris, data, strict=True)
        )
        rows = [
            (
                None if p.vector is None else p.vector.tolist(),
                p.reject_reason and str(p.reject_reason),
            )
            for p in photos
        ]
        return pd.DataFrame(rows, columns=["vector", "reject_reason"], index=model_input.index)


mlflow.models.set_model(ListingBackbone())
