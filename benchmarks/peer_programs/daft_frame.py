"""Embed a folder of photos with Daft, as its manual documents batch inference on images.

    python -m benchmarks.peer_programs.daft_frame PHOTOS BACKBONE OUTPUT [--openvino]

It follows https://docs.daft.ai/en/stable/modalities/images/ and
https://docs.daft.ai/en/stable/custom-code/cls/: paths from a glob, download and decoding by Daft,
a class with an eager float32 model, Parquet out. Photos are prepared with torchvision, as in Daft's
own comparison with Ray Data and Spark
(https://github.com/Eventual-Inc/Daft/tree/main/benchmarking/ai/image_classification), but in the
class. It is kinder than they are: the class runs in processes, one a core, whose interpreters do
not wait for each other.
"""

import os
from typing import Any

import daft
import numpy as np
from daft import DataType, col

from benchmarks.peer_programs.arguments import parse_arguments
from benchmarks.peer_programs.models import BATCH, load_eager, load_openvino, preparation

__all__: list[str] = []


@daft.cls(max_concurrency=os.cpu_count(), use_process=True)
class Embedder:
    """Holds the model; a process makes it once."""

    def __init__(self, backbone: str, openvino: bool) -> None:
        self._prepare = preparation(backbone, openvino=openvino)
        self._embed = (load_openvino if openvino else load_eager)(backbone)

    @daft.method.batch(return_dtype=DataType.list(DataType.float32()), batch_size=BATCH)
    def __call__(self, photos: daft.Series) -> list[Any]:
        """Turn decoded photos, uint8 of shape (H, W, 3) each, into vectors."""
        prepared = [self._prepare(np.asarray(photo)) for photo in photos.to_pylist()]
        return list(self._embed(np.stack(prepared)))


def main() -> None:
    """Run the program."""
    given = parse_arguments()
    backbone = str(given.backbone)
    embed = Embedder(backbone, given.openvino)
    photos = daft.from_glob_path(f"{given.photos}/*.jpg")
    decoded = col("path").download().decode_image()
    photos.select(col("path"), embed(decoded).alias("vector")).write_parquet(str(given.output))


if __name__ == "__main__":
    main()
