"""The model: photos in, categories out. Does not depend on Spark."""

import os

__version__ = "0.1.0"

# MLflow reads this on import; otherwise it sends usage statistics to its makers.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
