"""Batches through a GPU: copied beside the computing, and computed by one launch each.

    pixels -> pinned memory -> (stream 1) -> GPU -> (stream 2) trunk -> pinned memory -> features

While a batch is computed the next one is copied. What the GPU runs for a batch is recorded once as
a CUDA graph and replayed (https://docs.nvidia.com/cuda/cuda-c-programming-guide/, "CUDA Graphs"),
so that launching hundreds of kernels costs the host next to nothing. A graph reads and writes the
same memory every time: streams and events order whoever else touches it.
"""

import logging
import weakref
from collections import deque
from collections.abc import Callable
from threading import Lock

import numpy as np
import torch

from seer_model.backbones.runtimes.base import Features
from seer_model.photos.pixels import Pixels

__all__ = ["CudaPipeline"]

log = logging.getLogger(__name__)

_SLOTS = 3
"""Batches that are copied or wait for the trunk; as many as `PhotoEmbedder` has in flight."""

_WARM_UPS = 3
"""Runs before a recording, in which libraries choose their kernels and take their memory."""

Trunk = Callable[[torch.Tensor], torch.Tensor]


class CudaPipeline:
    """Runs a trunk on a GPU on batches of one fixed shape; thread-safe.

    Any number of batches may be in flight; a fourth waits on the host until the first is copied.

    Args:
        trunk: Pixels in, features out, both on the GPU: the first axis is the photos.
        shape: Of a batch of pixels, (N, H, W, 3).
        device: The GPU.

    Attributes:
        replays: Whether there is a recording; without one, which the log says, kernels are
            launched one by one.
    """

    def __init__(self, trunk: Trunk, shape: tuple[int, ...], device: torch.device) -> None:
        self._trunk = trunk
        self._shape = shape
        self._device = device
        self._starting = Lock()
        with torch.cuda.device(device):
            self._copying, self._computing = _stream(), _stream()
            self._slots = deque(_Slot(shape) for _ in range(_SLOTS))
            self._input = torch.zeros(shape, dtype=torch.uint8, device="cuda")
            torch.cuda.synchronize()  # The weights and these buffers are there for all streams.
            self._graph, self._output = self._record()
        self.replays = self._graph is not None
        # Memory must not go back to torch while the GPU still uses it.
        weakref.finalize(self, _finish, self._copying, self._computing)

    @torch.inference_mode()
    def _record(self) -> tuple[torch.cuda.CUDAGraph | None, torch.Tensor | None]:
        with torch.cuda.stream(self._computing):
            for _ in range(_WARM_UPS):
                self._trunk(self._input)
        self._computing.synchronize()
        graph, stream = torch.cuda.CUDAGraph(), _stream()
        recording = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
        try:
            # The outer context leaves the stream where a failed recording of older torch does not.
            with torch.cuda.stream(stream), recording:
                output = self._trunk(self._input)
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            log.warning("no CUDA graph, so kernels are launched one by one: %s", reason)
            return None, None
        return graph, output

    @torch.inference_mode()
    def start(self, pixels: Pixels) -> Callable[[], Features]:
        """Queue a batch, see `Runtime.start`; `pixels` may change as soon as this returns.

        Raises:
            ValueError: The batch has another dtype or shape.
        """
        if pixels.dtype != np.uint8 or pixels.shape != self._shape:
            raise ValueError(
                f"a batch must be uint8 of shape {self._shape}, not {pixels.dtype} {pixels.shape}"
            )
        with self._starting, torch.cuda.device(self._device):
            slot = self._slots[0]
            self._slots.rotate(-1)
            slot.uploaded.synchronize()  # The batch before has left the pinned memory,
            np.copyto(slot.on_host.numpy(), pixels)  # By this thread; torch would wake them all.
            with torch.cuda.stream(self._copying):
                slot.consumed.wait()  # and its copy on the GPU.
                slot.on_gpu.copy_(slot.on_host, non_blocking=True)
                slot.uploaded.record()
            with torch.cuda.stream(self._computing):
                slot.uploaded.wait()
                self._input.copy_(slot.on_gpu)
                slot.consumed.record()
                features = self._compute()
                # Pinned memory of its own, which torch keeps and gives to a later batch once the
                # caller has dropped the features.
                on_host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
                on_host.copy_(features, non_blocking=True)
                computed = _event()
                computed.record()

        def wait() -> Features:
            computed.synchronize()
            return on_host.numpy()

        return wait

    def _compute(self) -> torch.Tensor:
        """Queue the trunk; what it returns is valid until the next batch on this stream."""
        if self._graph is None or self._output is None:
            return self._trunk(self._input)
        self._graph.replay()
        return self._output


class _Slot:
    """Memory for a batch on its way to the GPU."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.on_host = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self.on_gpu = torch.empty(shape, dtype=torch.uint8, device="cuda")
        self.uploaded, self.consumed = _event(), _event()


def _stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def _event() -> torch.cuda.Event:
    """Make an event that a thread waits for asleep: its core belongs to those that decode."""
    return torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]


def _finish(*streams: torch.cuda.Stream) -> None:
    for stream in streams:
        stream.synchronize()
