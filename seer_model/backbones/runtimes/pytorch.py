"""The GPU runtime: torch in bfloat16, channels-last; float32 on a CPU without OpenVINO."""

from collections.abc import Callable

import torch

from seer_model.backbones.backbone import Backbone
from seer_model.backbones.runtimes.base import Features
from seer_model.backbones.runtimes.cuda_pipeline import CudaPipeline
from seer_model.backbones.trunk import channel_levels, standardise
from seer_model.photos.pixels import Pixels

__all__ = ["PixelTrunk", "TorchRuntime"]


class TorchRuntime:
    """Implements `seer_model.backbones.runtimes.base.Runtime`.

    On a GPU `start` returns at once, see `CudaPipeline`: one batch is computed while the next is
    decoded and copied. Several processes may share a device. On a CPU `start` computes.

    Args:
        backbone: The backbone.
        batch_size: Photos a batch.
        device: torch's name of the device.
        compiled: Compile the trunk with TorchInductor, which fuses what lies between convolutions.
            Takes a minute or more, a C compiler, and on a GPU Triton.
    """

    def __init__(
        self, backbone: Backbone, *, batch_size: int, device: str = "cpu", compiled: bool = False
    ) -> None:
        self.batch_size = batch_size
        self.width = backbone.width
        self.preprocessing = backbone.preprocessing
        where = torch.device(device)
        on_gpu = where.type == "cuda"
        self.name = f"torch {'bf16' if on_gpu else 'f32'}"
        trunk = PixelTrunk(backbone, where, torch.bfloat16 if on_gpu else torch.float32)
        self._trunk = torch.compile(trunk, dynamic=False) if compiled else trunk
        size = self.preprocessing.image_size
        shape = (batch_size, size, size, 3)
        self._pipeline = CudaPipeline(self._trunk, shape, where) if on_gpu else None

    def start(self, pixels: Pixels) -> Callable[[], Features]:
        """See `Runtime.start`."""
        if self._pipeline is not None:
            return self._pipeline.start(pixels)
        with torch.inference_mode():
            features: Features = self._trunk(torch.from_numpy(pixels)).numpy()
        return lambda: features


class PixelTrunk(torch.nn.Module):
    """A trunk on a device that takes pixels: uint8 (N, H, W, 3) in, float32 (N, width) out.

    Args:
        backbone: The backbone.
        device: Where it is.
        dtype: What it computes in, channels-last.
    """

    def __init__(self, backbone: Backbone, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self._levels = channel_levels(backbone.preprocessing, device)
        self._trunk = backbone.build().to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute the features."""
        inputs = standardise(pixels, *self._levels).to(self._dtype)
        features: torch.Tensor = self._trunk(inputs)
        return features.float()
