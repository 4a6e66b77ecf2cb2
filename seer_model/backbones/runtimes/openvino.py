"""The CPU runtime: OpenVINO, several times as fast as torch in float32.

OpenVINO (https://docs.openvino.ai, Apache-2.0) fuses layers and uses the processor's bfloat16
instructions (AMX, AVX512_BF16) if it has them.
"""

import logging
import platform
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from seer_model.backbones.backbone import Backbone
from seer_model.backbones.preprocessing import Preprocessing, normalise
from seer_model.backbones.runtimes.base import Features
from seer_model.photos.pixels import Pixels

# OpenVINO sends usage statistics when imported, and keeps a folder for them in the user's home,
# unless this package is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino.frontend import FrontEndManager  # noqa: E402
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder  # noqa: E402

__all__ = ["OpenVinoRuntime", "Unsupported"]

_X86 = ("x86_64", "AMD64")


class Unsupported(Exception):
    """OpenVINO lacks an operation of the trunk; the message is one line."""


class OpenVinoRuntime:
    """Implements `seer_model.backbones.runtimes.base.Runtime`; `start` returns at once.

    Features are bit-identical for any number of threads and any place in the batch.

    Args:
        backbone: The backbone.
        batch_size: Photos a batch.
        threads: Threads to compute with.
        precision: `bf16` or `f32`; by default bf16 if the processor has instructions for it.

    Raises:
        Unsupported: The trunk cannot be converted.
    """

    def __init__(
        self, backbone: Backbone, *, batch_size: int, threads: int = 1, precision: str | None = None
    ) -> None:
        self.batch_size = batch_size
        self.width = backbone.width
        self.preprocessing = backbone.preprocessing
        if precision is None and platform.machine() not in _X86:
            precision = "f32"  # By default OpenVINO takes float16 on ARM, whose range is too small.
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Every process on a machine would pin its threads to the same first cores.
            "ENABLE_CPU_PINNING": False,
            **({} if precision is None else {"INFERENCE_PRECISION_HINT": precision}),
        }
        network = _convert(backbone, batch_size)
        self._compiled = openvino.Core().compile_model(network, "CPU", settings)
        chosen = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_dtype()
        self.name = f"openvino {'f32' if chosen == np.float32 else 'bf16'}"
        self._idle: deque[openvino.InferRequest] = deque()

    def start(self, pixels: Pixels) -> Callable[[], Features]:
        """See `Runtime.start`."""
        request = self._idle.pop() if self._idle else self._compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(pixels, shared_memory=True))
        request.start_async()

        def wait(_keep_alive: Pixels = pixels) -> Features:
            request.wait()
            features: Features = request.get_output_tensor().data.copy()
            self._idle.append(request)
            return features

        return wait


class _PhotoTrunk(nn.Module):
    """A trunk that takes pixels: normalisation is part of the network."""

    def __init__(self, trunk: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self._trunk = trunk
        self._preprocessing = preprocessing

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self._trunk(normalise(pixels, self._preprocessing))
        return features


def _convert(backbone: Backbone, batch_size: int) -> openvino.Model:
    size = backbone.preprocessing.image_size
    shape = (batch_size, size, size, 3)
    module = _PhotoTrunk(backbone.build(), backbone.preprocessing).eval()
    photos = torch.zeros(shape, dtype=torch.uint8)
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(module, (photos,))
            decoder = TorchFXPythonDecoder.from_exported_program(program)
        frontend = FrontEndManager().load_by_framework("pytorch")
        network = frontend.convert(frontend.load(decoder))
        network.reshape(shape)
    except Exception as error:  # Of torch's exporter, its decompositions and OpenVINO's frontend.
        raise Unsupported(str(error).strip().rpartition("\n")[2] or repr(error)) from error
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop the decoder's warning about operations missing in this torch; no trunk uses them."""

    def is_other(record: logging.LogRecord) -> bool:
        return "not found in decomp table" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(is_other)
    try:
        yield
    finally:
        root.removeFilter(is_other)
