"""The model: photos in, categories out. Knows no Spark."""

import os

# MLflow reports its use to its makers, unless told otherwise before it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
