"""What `benchmarks.gpu` measures: forward passes, embedders and decoders, in photos per second."""

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from math import inf
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from statistics import fmean
from time import perf_counter
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional

from benchmarks.measuring import measure
from benchmarks.simulated_accelerator import SimulatedAccelerator, embedded_photos
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.runtimes.pytorch import TorchRuntime
from seer_model.backbones.sources import backbone_from_source
from seer_model.backbones.weights import random_backbone
from seer_model.photos.source import PhotoSource

__all__ = [
    "Bench",
    "apart",
    "ask_nvidia_smi",
    "bare_rate",
    "cpu_decode_rate",
    "device_decode_rate",
    "fed_rate",
    "shared_rate",
]

Run = Callable[[], object]
Result = TypeVar("Result")

_WARM_UPS = 5
_DECODE_BATCH = 64


@dataclass(frozen=True)
class Bench:
    """Where to measure, and for how long.

    Attributes:
        device: torch's name of the device.
        photos: The JPEGs.
        bare_s: Seconds for a forward pass or a decoder on the device.
        fed_s: Seconds for an embedder or a decoder on CPUs, warm-up included.
    """

    device: str
    photos: Sequence[bytes]
    bare_s: float
    fed_s: float

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device != "cpu"

    @property
    def sources(self) -> list[PhotoSource]:
        """The photos for an embedder."""
        return [PhotoSource(None, data) for data in self.photos]


def apart(seconds: float, work: Callable[..., Result], *arguments: object) -> Result:
    """Do work in a process of its own, which is ended after some seconds.

    Compilers and cuDNN's search leave things behind that would speed up what is measured later.
    """
    with get_context("spawn").Pool(1) as pool:
        return pool.apply_async(work, arguments).get(seconds)


@cache
def _backbone(name: str) -> Backbone:
    """Make a network of random weights by its architecture, or load one by its address."""
    return backbone_from_source(name) or random_backbone(name)


# The forward pass alone.


@torch.inference_mode()
def bare_rate(name: str, batch: int, way: str, bench: Bench) -> float:
    """Measure the forward pass on one batch that is already on the device.

    Args:
        name: An architecture or the address of a backbone.
        batch: Photos a batch.
        way: Of `_WAYS`.
        bench: Where to measure.
    """
    trunk, size = _trunk(name, bench.device), _backbone(name).preprocessing.image_size
    dtype = next(trunk.parameters()).dtype
    photos = torch.rand((batch, 3, size, size), device=bench.device, dtype=dtype)
    photos = photos.contiguous(memory_format=torch.channels_last)
    return batch * _repeats(_WAYS[way](trunk, photos), bench)


@cache
def _trunk(name: str, device: str) -> nn.Module:
    """Build a trunk as `TorchRuntime` does."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    trunk: nn.Module = _backbone(name).build()
    return trunk.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _eager(trunk: nn.Module, photos: torch.Tensor) -> Run:
    return lambda: trunk(photos)


def _recorded(trunk: nn.Module, photos: torch.Tensor) -> Run:
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            trunk(photos)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        trunk(photos)
    return graph.replay


def _searched(trunk: nn.Module, photos: torch.Tensor) -> Run:
    torch.backends.cudnn.benchmark = True
    try:
        return _recorded(trunk, photos)
    finally:
        torch.backends.cudnn.benchmark = False


def _compiled(trunk: nn.Module, photos: torch.Tensor, mode: str) -> Run:
    fast = torch.compile(trunk, mode=mode, dynamic=False)
    return lambda: fast(photos)


_WAYS: dict[str, Callable[[nn.Module, torch.Tensor], Run]] = {
    "eager": _eager,
    "CUDA graph": _recorded,
    "CUDA graph, cuDNN's search": _searched,
    "compiled": partial(_compiled, mode="reduce-overhead"),
    "compiled, max-autotune": partial(_compiled, mode="max-autotune"),
}
"""Ways to run a trunk on photos, which make the function that runs it once."""


def _repeats(work: Run, bench: Bench) -> float:
    """Measure how many times per second the device completes `work`."""
    for _ in range(_WARM_UPS):
        work()
    _synchronize(bench)
    done, started = 0, perf_counter()
    while (elapsed := perf_counter() - started) < bench.bare_s or not done:
        for _ in range(4):
            work()
        _synchronize(bench)
        done += 4
    return done / elapsed


def _synchronize(bench: Bench) -> None:
    if bench.on_gpu:
        torch.cuda.synchronize()


# The embedder.


def fed_rate(
    name: str, batch: int, threads: int, compiled: bool, bench: Bench
) -> tuple[float, float | None]:
    """Measure `PhotoEmbedder` fed with JPEGs; returns its rate, and the GPU's utilisation in %."""
    embedder = PhotoEmbedder(_runtime(name, batch, compiled, bench.device), decode_threads=threads)
    with _watched_gpu(bench) as busy:
        rate = measure(embedded_photos(embedder, bench.sources), bench.fed_s)
    return rate, fmean(busy) if busy else None


@lru_cache(maxsize=1)
def _runtime(name: str, batch: int, compiled: bool, device: str) -> TorchRuntime:
    return TorchRuntime(_backbone(name), batch_size=batch, device=device, compiled=compiled)


@contextmanager
def _watched_gpu(bench: Bench) -> Iterator[list[float]]:
    """Sample GPU utilisation, in per cent, twice a second; nothing where it is not told."""
    samples: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while bench.on_gpu and not done.wait(0.5):
            answer = ask_nvidia_smi("utilization.gpu")
            if answer is None or not answer.isdigit():
                return
            samples.append(float(answer))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def ask_nvidia_smi(query: str) -> str | None:
    """Ask the driver about the first GPU; None where its program is missing."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    name = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    command = [program, f"--query-gpu={query}", "--format=csv,noheader,nounits", f"--id={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def shared_rate(
    name: str, processes: int, batch: int, threads: int, seconds: float, bench: Bench
) -> float:
    """Measure embedders in processes that share the device; returns the sum of their rates.

    They are measured from the moment when all are ready.

    Args:
        name: An architecture or the address of a backbone.
        processes: How many there are.
        batch: Photos a batch.
        threads: Decode threads of each.
        seconds: After which they are ended.
        bench: Where to measure.
    """
    context = get_context("spawn")
    ready = context.Barrier(processes)
    with context.Pool(processes, _meet_at, (ready,)) as pool:
        each = [(name, batch, threads, seconds, bench)] * processes
        return sum(pool.starmap_async(_rate_beside_others, each, chunksize=1).get(seconds))


_ready: list[Barrier] = []


def _meet_at(ready: Barrier) -> None:
    _ready.append(ready)


def _rate_beside_others(name: str, batch: int, threads: int, seconds: float, bench: Bench) -> float:
    embedder = PhotoEmbedder(_runtime(name, batch, False, bench.device), decode_threads=threads)
    _ready[0].wait(seconds)
    return measure(embedded_photos(embedder, bench.sources), bench.fed_s)


# Decoding.


def cpu_decode_rate(threads: int, bench: Bench) -> float:
    """Measure the embedder's own decoding on CPUs, with nothing behind it."""
    free = SimulatedAccelerator(Preprocessing(), batch_size=min(64, len(bench.photos)), speed=inf)
    embedder = PhotoEmbedder(free, decode_threads=threads)
    return measure(embedded_photos(embedder, bench.sources), bench.fed_s)


def device_decode_rate(bench: Bench, *, resized: bool) -> float:
    """Measure torchvision's decoder on the device: nvJPEG on a GPU.

    Args:
        bench: Where to measure.
        resized: Resize and crop too, on the device, as `prepare_photo` does on CPUs.
    """
    from torchvision.io import ImageReadMode, decode_jpeg  # noqa: PLC0415 - what it lacks is told

    size = Preprocessing().image_size
    encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in bench.photos]
    encoded = (encoded * _DECODE_BATCH)[: min(_DECODE_BATCH, 8 * len(encoded))]

    def decode() -> list[torch.Tensor]:
        decoded: list[torch.Tensor] = decode_jpeg(encoded, ImageReadMode.RGB, device=bench.device)
        return decoded

    def prepare() -> torch.Tensor:
        return torch.stack([_centre_square(photo, size) for photo in decode()])

    with torch.inference_mode():
        return len(encoded) * _repeats(prepare if resized else decode, bench)


def _centre_square(photo: torch.Tensor, size: int) -> torch.Tensor:
    """Crop the largest centred square of a photo, (3, H, W) uint8, and resize it, antialiased."""
    height, width = photo.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = photo[None, :, top : top + side, left : left + side].float()
    resized = functional.interpolate(square, (size, size), mode="bilinear", antialias=True)
    return resized[0].round_().to(torch.uint8)
