"""Forks Spark's Python workers from a process that has imported the model's code.

Alone, a worker spends 4 CPU seconds on imports and 4 more to convert the backbone for OpenVINO.
"""

import os
from pathlib import Path

from pyspark import daemon

from tests.support.spark_python import CONVERSIONS

if __name__ == "__main__":
    # Imported here, since a worker's decoding process imports this module, and needs no model.
    from jobs.stages import worker  # noqa: F401 - imported for the workers
    from tests.support.conversions import convert_once

    convert_once(Path(os.environ[CONVERSIONS]))
    daemon.manager()
