"""Choose the runtime for a device."""

import logging
from functools import lru_cache
from importlib.util import find_spec

import torch

from seer_model.backbones.backbone import Backbone
from seer_model.backbones.runtimes.base import Runtime
from seer_model.backbones.runtimes.pytorch import TorchRuntime

__all__ = ["open_runtime"]

log = logging.getLogger(__name__)

# The activations of more photos do not fit into a core's cache.
_CPU_BATCH = 8
_GPU_BATCH = 256


def open_runtime(
    backbone: Backbone, device: str = "cpu", *, threads: int = 1, batch_size: int | None = None
) -> Runtime:
    """Open a device's fastest runtime.

    On a CPU that is OpenVINO, in bfloat16 if the processor has the instructions and else in
    float32, or torch in float32 where OpenVINO has no wheel or cannot convert the trunk, which the
    log says. On CUDA it is torch in bfloat16.

    Args:
        backbone: The backbone.
        device: torch's name of the device, `cpu` or `cuda:N`.
        threads: Threads to compute with on a CPU.
        batch_size: Photos a batch; by default 8 on a CPU and 256 on a GPU.
    """
    on_cpu = torch.device(device).type == "cpu"
    batch_size = batch_size or (_CPU_BATCH if on_cpu else _GPU_BATCH)
    runtime = _openvino(backbone, batch_size, threads) if on_cpu else None
    runtime = runtime or TorchRuntime(backbone, batch_size=batch_size, device=device)
    _log_once(f"embedding photos with {runtime.name}")
    return runtime


def _openvino(backbone: Backbone, batch_size: int, threads: int) -> Runtime | None:
    if not find_spec("openvino"):
        return None
    from seer_model.backbones.runtimes.openvino import (  # noqa: PLC0415 - optional
        OpenVinoRuntime,
        Unsupported,
    )

    try:
        return OpenVinoRuntime(backbone, batch_size=batch_size, threads=threads)
    except Unsupported as error:
        _log_once(f"OpenVINO cannot run {backbone.architecture} ({error}); PyTorch does")
        return None


@lru_cache(maxsize=8)
def _log_once(message: str) -> None:
    log.info(message)
