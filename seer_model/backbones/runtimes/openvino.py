"""The CPU runtime: OpenVINO, several times as fast as torch in float32.

OpenVINO (https://docs.openvino.ai, Apache-2.0) fuses layers and uses the processor's bfloat16
instructions (AMX, AVX512_BF16) if it has them.
"""

import platform
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from schemas.errors import BundleError
from seer_model.backbones.backbone import NETWORK_FILES, Backbone
from seer_model.backbones.constants import X86
from seer_model.backbones.runtimes.base import CPU_BATCH, Features
from seer_model.photos.pixels import Pixels

# OpenVINO sends usage statistics when imported, and keeps a folder for them in the user's home,
# unless this package is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402

__all__ = ["OpenVinoRuntime", "openvino"]


class OpenVinoRuntime:
    """Implements `seer_model.backbones.runtimes.base.Runtime`; `start` returns at once.

    Features are bit-identical for any number of threads and any place in the batch.

    Args:
        backbone: Tells what the network takes and gives.
        network: Folder with the backbone's `NETWORK_FILES`.
        batch_size: Photos a batch.
        threads: Threads to compute with.
        precision: `bf16` or `f32`; by default bf16 if the processor has instructions for it.

    Raises:
        BundleError: The network cannot be read, or is not the backbone's.
    """

    def __init__(
        self,
        backbone: Backbone,
        network: Path,
        *,
        batch_size: int = CPU_BATCH,
        threads: int = 1,
        precision: str | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.width = backbone.width
        self.preprocessing = backbone.preprocessing
        if precision is None and platform.machine() not in X86:
            precision = "f32"  # By default OpenVINO takes float16 on ARM, whose range is too small.
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Every process on a machine would pin its threads to the same first cores.
            "ENABLE_CPU_PINNING": False,
            **({} if precision is None else {"INFERENCE_PRECISION_HINT": precision}),
        }
        self._compiled = openvino.Core().compile_model(self._read(network), "CPU", settings)
        chosen = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_dtype()
        kind = "f32" if chosen == np.float32 else "bf16"
        self.name = f"openvino {f'int8 and {kind}' if backbone.quantized else kind}"
        self._idle: deque[openvino.InferRequest] = deque()

    def _read(self, folder: Path) -> openvino.Model:
        size = self.preprocessing.image_size
        path = folder / NETWORK_FILES[0]
        try:
            network = openvino.Core().read_model(path)
            if network.input().get_shape()[0] != self.batch_size:
                network.reshape([self.batch_size, size, size, 3])
            taken, given = (tuple(x.get_shape()) for x in (network.input(), network.output()))
        except RuntimeError as error:
            reason = str(error).strip().rpartition("\n")[2]
            raise BundleError(f"{path}: OpenVINO cannot read it: {reason}") from error
        if (taken, given) != ((self.batch_size, size, size, 3), (self.batch_size, self.width)):
            raise BundleError(f"{path}: gives {given} for {taken}, and is not the backbone's")
        return network

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
