"""Embed a folder of photos with Ray Data, as its manual documents batch inference on images.

    python -m benchmarks.peer_programs.ray_data PHOTOS BACKBONE OUTPUT [--openvino]

It follows https://docs.ray.io/en/latest/data/working-with-images.html and
https://docs.ray.io/en/latest/data/batch_inference.html: `read_images`, torchvision's transforms in
a `map`, a class with an eager float32 model in a pool of actors, Parquet out. It is kinder than
they are: transforms get Pillow's image instead of floats of full size, and actors ask for half a
core. With the default, a whole one, as many actors as cores leave none to read with, and the job
waits for ever.
"""

import os
from collections.abc import Callable
from typing import Any

import ray

from benchmarks.peer_programs.arguments import parse_arguments
from benchmarks.peer_programs.models import BATCH, load_eager, load_openvino, preparation

__all__: list[str] = []

_ACTOR_CORES = 0.5

Batch = dict[str, Any]


class Embedder:
    """Holds the model; an actor makes it once."""

    def __init__(self, backbone: str, openvino: bool) -> None:
        self._embed = (load_openvino if openvino else load_eager)(backbone)

    def __call__(self, batch: Batch) -> Batch:
        """Turn prepared photos of shape (N, ...) into vectors."""
        return {"path": batch["path"], "vector": self._embed(batch["image"])}


def preparing(backbone: str, *, openvino: bool) -> Callable[[Batch], Batch]:
    """Make the function that prepares a row."""
    prepare = preparation(backbone, openvino=openvino)

    def prepare_row(row: Batch) -> Batch:
        return {"path": row["path"], "image": prepare(row["image"])}

    return prepare_row


def main() -> None:
    """Run the program."""
    given = parse_arguments()
    backbone = str(given.backbone)
    ray.init("local", include_dashboard=False, log_to_driver=False)
    photos = ray.data.read_images(str(given.photos), include_paths=True, mode="RGB")
    vectors = photos.map(preparing(backbone, openvino=given.openvino)).map_batches(
        Embedder,
        fn_constructor_args=(backbone, given.openvino),
        compute=ray.data.ActorPoolStrategy(size=os.cpu_count()),
        num_cpus=_ACTOR_CORES,
        batch_size=BATCH,
    )
    vectors.write_parquet(str(given.output))


if __name__ == "__main__":
    main()
