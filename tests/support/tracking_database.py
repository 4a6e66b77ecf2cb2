"""MLflow databases for tests: migrated once for all processes of the tests, then copied."""

import os
import shutil
import tempfile
from pathlib import Path

from mlflow import MlflowClient

from tests.support.spark_python import CONVERSIONS


def new_database(folder: Path, name: str = "mlflow.db") -> str:
    """Put an empty database into a folder; returns its URI. Making the tables takes seconds."""
    shutil.copyfile(_template(), folder / name)
    return f"sqlite:///{folder / name}"


def _template() -> Path:
    folder = Path(os.environ[CONVERSIONS])
    kept = folder / "mlflow.db"
    if not kept.exists():
        fresh = Path(tempfile.mkdtemp(dir=folder)) / "mlflow.db"
        MlflowClient(f"sqlite:///{fresh}").search_experiments()
        fresh.rename(kept)
    return kept
