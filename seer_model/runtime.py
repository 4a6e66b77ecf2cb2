"""What runs a backbone: OpenVINO on a CPU, torch on a GPU, one interface before both."""

import logging
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from seer_model.backbone import Backbone
from seer_model.preprocessing import Preprocessing

__all__ = ["Features", "Pixels", "Runtime", "open_runtime"]

log = logging.getLogger(__name__)

Features = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

# Activations of more photos at once do not fit into a core's cache.
_CPU_BATCH = 8
_GPU_BATCH = 256


class Runtime(Protocol):
    """A backbone ready to run, on batches of one fixed size.

    Attributes:
        name: Library and precision, for reports.
        batch_size: Photos a batch.
        width: Length of a feature vector.
        preprocessing: How photos must be prepared.
    """

    name: str
    batch_size: int
    width: int
    preprocessing: Preprocessing

    def start(self, pixels: Pixels) -> Callable[[], Features]:
        """Begin to embed a batch, where the hardware allows beside the caller's own work.

        Args:
            pixels: uint8, (batch_size, image_size, image_size, 3), as `prepare_photo` makes them;
                not to be changed until the result is there.

        Returns:
            A function that waits for the features and returns them, (batch_size, width).
        """
        ...


def open_runtime(
    backbone: Backbone, device: str = "cpu", *, threads: int = 1, batch_size: int | None = None
) -> Runtime:
    """The fastest runtime for a device.

    A CPU gets OpenVINO, which computes in bfloat16 where the processor has instructions for it and
    in float32 elsewhere; torch in float32 where OpenVINO has no wheel. CUDA gets torch in bfloat16.

    Args:
        backbone: What to run.
        device: torch's name of the device, `cpu` or `cuda:N`.
        threads: Threads to compute on, on a CPU.
        batch_size: Photos a batch; the default is 8 on a CPU and 256 on a GPU.
    """
    on_cpu = torch.device(device).type == "cpu"
    batch_size = batch_size or (_CPU_BATCH if on_cpu else _GPU_BATCH)
    runtime: Runtime
    if on_cpu and find_spec("openvino"):
        from seer_model.openvino_runtime import OpenVinoRuntime  # noqa: PLC0415 - has no wheel for some

        runtime = OpenVinoRuntime(backbone, batch_size=batch_size, threads=threads)
    else:
        from seer_model.torch_runtime import TorchRuntime  # noqa: PLC0415

        runtime = TorchRuntime(backbone, batch_size=batch_size, device=device)
    _say_once(runtime.name)
    return runtime


@lru_cache(maxsize=8)
def _say_once(name: str) -> None:
    log.info("embedding photos with %s", name)
