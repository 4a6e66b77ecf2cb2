"""Choose the runtime for a device."""

import logging
import tempfile
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from schemas.errors import SettingsError
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.runtimes.base import CPU_BATCH, Runtime
from seer_model.gpu_driver import has_gpu_driver
from seer_model.processes import scratch_folder

__all__ = ["cuda_available", "open_runtime"]

log = logging.getLogger(__name__)

_GPU_BATCH = 256


def open_runtime(
    backbone: Backbone, device: str = "cpu", *, threads: int = 1, batch_size: int | None = None
) -> Runtime:
    """Open a device's fastest runtime.

    On a CPU that is OpenVINO, in bfloat16 if the processor has the instructions and else in
    float32, or torch in float32 where OpenVINO has no wheel or cannot run the trunk, which the
    log says. On CUDA it is torch in bfloat16. Torch, which takes seconds to import and half a
    gigabyte, is imported only where it is needed.

    Args:
        backbone: The backbone.
        device: torch's name of the device, `cpu` or `cuda:N`.
        threads: Threads to compute with on a CPU.
        batch_size: Photos a batch; by default 8 on a CPU and 256 on a GPU.

    Raises:
        SettingsError: The backbone is quantized, and the device is not a CPU with OpenVINO.
    """
    on_cpu = device == "cpu"
    if backbone.quantized and not (on_cpu and find_spec("openvino")):
        raise SettingsError(f"{device} cannot run a quantized backbone: OpenVINO does, on a CPU")
    batch_size = batch_size or (CPU_BATCH if on_cpu else _GPU_BATCH)
    runtime = _openvino(backbone, batch_size, threads) if on_cpu else None
    runtime = runtime or _torch(backbone, batch_size, device, threads)
    _log_once(f"embedding photos with {runtime.name}")
    return runtime


def _openvino(backbone: Backbone, batch_size: int, threads: int) -> Runtime | None:
    if not find_spec("openvino"):
        return None
    network = backbone.network or _converted(backbone)
    if network is None:
        return None
    from seer_model.backbones.runtimes.openvino import OpenVinoRuntime  # noqa: PLC0415 - optional

    return OpenVinoRuntime(backbone, network, batch_size=batch_size, threads=threads)


def _converted(backbone: Backbone) -> Path | None:
    """Convert a backbone that has never been stored."""
    from seer_model.backbones.runtimes import conversion  # noqa: PLC0415 - torch

    folder = Path(tempfile.mkdtemp(dir=scratch_folder()))
    return folder if conversion.convert(backbone, folder) else None


def _torch(backbone: Backbone, batch_size: int, device: str, threads: int) -> Runtime:
    import torch  # noqa: PLC0415

    from seer_model.backbones.runtimes.pytorch import TorchRuntime  # noqa: PLC0415 - torch

    if device == "cpu":
        torch.set_num_threads(threads)
    return TorchRuntime(backbone, batch_size=batch_size, device=device)


def cuda_available() -> bool:
    """Whether torch finds a GPU; it is asked only on machines with a GPU's driver."""
    if not has_gpu_driver():
        return False
    import torch  # noqa: PLC0415

    return torch.cuda.is_available()


@lru_cache(maxsize=8)
def _log_once(message: str) -> None:
    log.info(message)
