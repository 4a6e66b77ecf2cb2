"""The backbone as the peers' workers compute with it, from its folder alone.

Both kinds use one thread: there is a worker for each core.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

__all__ = ["BATCH", "load_eager", "load_openvino", "preparation"]

BATCH = 32

Embed = Callable[[np.ndarray], np.ndarray]


def preparation(backbone: str, *, openvino: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Make the function that prepares a photo, with torchvision.

    It takes pixels, uint8 of shape (H, W, 3), and gives what `load_openvino` or `load_eager` takes:
    uint8 of shape (size, size, 3), or float32 of shape (3, size, size), normalised.
    """
    expected = _record(backbone)["preprocessing"]
    crop = [
        transforms.Resize(expected["image_size"]),
        transforms.CenterCrop(expected["image_size"]),
    ]
    normalise = [transforms.ToTensor(), transforms.Normalize(expected["mean"], expected["std"])]
    transform = transforms.Compose([*crop, *([] if openvino else normalise)])

    def prepare(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(transform(Image.fromarray(pixels)))

    return prepare


def load_eager(backbone: str) -> Embed:
    """Load timm's network: (N, 3, size, size) float32 in, (N, width) float32 out."""
    import timm  # noqa: PLC0415 - seconds, which the other kind does not need
    from safetensors.torch import load_file  # noqa: PLC0415

    torch.set_num_threads(1)
    model = timm.create_model(_record(backbone)["architecture"], num_classes=0)
    model.load_state_dict(load_file(Path(backbone) / "weights.safetensors"))
    model.eval()

    def embed(photos: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(photos)).numpy()

    return embed


def load_openvino(backbone: str) -> Embed:
    """Load the backbone's OpenVINO network: (N, size, size, 3) uint8 in, (N, width) float32 out."""
    sys.modules.setdefault("openvino_telemetry", None)  # Or it sends usage statistics.
    import openvino  # noqa: PLC0415

    core = openvino.Core()
    network = core.read_model(Path(backbone) / "network.xml")
    size = _record(backbone)["preprocessing"]["image_size"]
    network.reshape([-1, size, size, 3])
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    request = core.compile_model(network, "CPU", settings).create_infer_request()

    def embed(photos: np.ndarray) -> np.ndarray:
        return np.array(request.infer([photos])[0])

    return embed


def _record(backbone: str) -> Any:
    return json.loads((Path(backbone) / "backbone.json").read_text(encoding="utf-8"))
