"""The GPU runtime: torch in bfloat16, channels-last; float32 on a CPU without OpenVINO."""

from collections.abc import Callable

import torch
from torch import nn

from seer_model.backbones.backbone import Backbone
from seer_model.backbones.runtimes.base import Features
from seer_model.backbones.trunk import normalise
from seer_model.photos.pixels import Pixels

__all__ = ["TorchRuntime"]


class TorchRuntime:
    """Implements `seer_model.backbones.runtimes.base.Runtime`.

    On a GPU `start` returns at once: it queues the copies, through pinned memory, and the trunk on
    the device, so that one batch is computed while the next is decoded and copied. Several
    processes may share a device. On a CPU `start` computes.

    Args:
        backbone: The backbone.
        batch_size: Photos a batch.
        device: torch's name of the device.
    """

    def __init__(self, backbone: Backbone, *, batch_size: int, device: str = "cpu") -> None:
        self.batch_size = batch_size
        self.width = backbone.width
        self.preprocessing = backbone.preprocessing
        self._device = torch.device(device)
        self._on_gpu = self._device.type == "cuda"
        self._dtype = torch.bfloat16 if self._on_gpu else torch.float32
        precision = "bf16" if self._on_gpu else "f32"
        self.name = f"torch {precision}"
        trunk: nn.Module = backbone.build()
        self._trunk = trunk.to(self._device, self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def start(self, pixels: Pixels) -> Callable[[], Features]:
        """See `Runtime.start`."""
        batch = torch.from_numpy(pixels)
        if not self._on_gpu:
            features = self._embed(batch).numpy()
            return lambda: features
        with torch.cuda.device(self._device):
            on_gpu = self._embed(batch.pin_memory().to(self._device, non_blocking=True))
            on_host = torch.empty(on_gpu.shape, dtype=on_gpu.dtype, pin_memory=True)
            on_host.copy_(on_gpu, non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()

        def wait() -> Features:
            copied.synchronize()
            return on_host.numpy()

        return wait

    @torch.inference_mode()
    def _embed(self, batch: torch.Tensor) -> torch.Tensor:
        inputs = normalise(batch, self.preprocessing).to(self._dtype)
        features: torch.Tensor = self._trunk(inputs)
        return features.float()
