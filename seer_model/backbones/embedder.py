"""Embed photos in a pipeline: fetching, decoding and the trunk run concurrently.

    sources -> PhotoLoader (fetch and decode threads) -> batches -> Runtime -> embeddings, in order

Backpressure bounds each stage: a number of photos is prefetched, a number of batches in flight.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.rejects import RejectReason
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.runtimes.base import Features, Runtime
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.photos.byte_budget import ByteBudget
from seer_model.photos.isolated import IsolatedDecoder
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.loader import Loaded, PhotoLoader
from seer_model.photos.pixels import Pixels, load_photo, resize_square
from seer_model.photos.source import PhotoSource

__all__ = ["EmbeddedPhoto", "PhotoEmbedder"]

_BATCHES_PREFETCHED = 4
_BATCHES_IN_FLIGHT = 2
# A batch is also full with this many rejects a place, so that they need not wait for a good photo.
_REJECTS_PER_PLACE = 4
_FLOAT16_MAX = float(np.finfo(np.float16).max)


class EmbeddedPhoto(NamedTuple):
    """A photo's embedding, float16 of shape (width,), or the reason why it has none."""

    vector: npt.NDArray[np.float16] | None
    reject_reason: RejectReason | None


class PhotoEmbedder:
    """Photos in, embeddings out, on one runtime.

    Every batch has the runtime's size; the last is padded with black photos. An embedding does not
    depend on the other photos of its batch.

    Args:
        runtime: Executes the backbone.
        decode_threads: Photos decoded at the same time.
        limits: Limits on each photo, and on the memory of all photos being decoded.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        decode_threads: int = 1,
        limits: PhotoLimits = PhotoLimits(),  # noqa: B008 - frozen
    ) -> None:
        self.runtime = runtime
        self._limits = limits
        memory = ByteBudget(limits.max_decode_memory)
        decode = partial(
            load_photo, size=runtime.preprocessing.image_size, limits=limits, memory=memory
        )
        self._loader = PhotoLoader(decode, decode_threads=decode_threads, limits=limits)

    @classmethod
    def open(
        cls,
        backbone: Backbone,
        device: str = "cpu",
        *,
        threads: int = 1,
        batch_size: int | None = None,
        limits: PhotoLimits = PhotoLimits(),  # noqa: B008 - frozen
    ) -> "PhotoEmbedder":
        """Make an embedder on a device's fastest runtime, see `open_runtime`.

        Args:
            backbone: The backbone.
            device: torch's name of the device.
            threads: Threads for decoding and, on a CPU, for computing.
            batch_size: Photos a batch.
            limits: Limits on photos.
        """
        runtime = open_runtime(backbone, device, threads=threads, batch_size=batch_size)
        return cls(runtime, decode_threads=threads, limits=limits)

    def embed(
        self, sources: Iterable[PhotoSource], *, isolated: bool = False
    ) -> Generator[EmbeddedPhoto, None, None]:
        """Embed photos, in order; a photo that cannot be used yields its reject reason.

        Prefetches a few batches of `sources`. Closing the generator drops photos not yet started.

        Args:
            sources: The photos.
            isolated: Decode in a separate process, one photo at a time: slower, but survives a
                photo that crashes the decoder, and rejects it.
        """
        if not isolated:
            yield from self._embed(self._loader, sources)
            return
        size = self.runtime.preprocessing.image_size

        def load(source: PhotoSource) -> Pixels:
            return resize_square(process.load(source), size)

        # The loader closes first: its thread uses the process.
        with (
            closing(IsolatedDecoder(size, self._limits)) as process,
            closing(PhotoLoader(load, decode_threads=1, limits=self._limits)) as loader,
        ):
            yield from self._embed(loader, sources)

    def _embed(
        self, loader: PhotoLoader, sources: Iterable[PhotoSource]
    ) -> Generator[EmbeddedPhoto, None, None]:
        loaded = loader.load(sources, ahead=_BATCHES_PREFETCHED * self.runtime.batch_size)
        running: deque[_Batch] = deque()
        try:
            for batch in self._batches(loaded):
                batch.start()
                running.append(batch)
                if len(running) > _BATCHES_IN_FLIGHT:
                    yield from running.popleft().finish()
            while running:
                yield from running.popleft().finish()
        finally:
            loaded.close()

    def _batches(self, loaded: Iterable[Loaded]) -> Iterator["_Batch"]:
        batch = _Batch(self.runtime)
        for photo in loaded:
            batch.add(photo)
            if batch.is_full:
                yield batch
                batch = _Batch(self.runtime)
        if batch.reasons:
            yield batch


class _Batch:
    """Photos that the runtime takes together, and the rejects between them."""

    def __init__(self, runtime: Runtime) -> None:
        size = runtime.preprocessing.image_size
        self._runtime = runtime
        self._pixels = np.zeros((runtime.batch_size, size, size, 3), np.uint8)
        self._used = 0
        self._wait: Callable[[], Features] | None = None
        self.reasons: list[RejectReason | None] = []

    @property
    def is_full(self) -> bool:
        places = self._runtime.batch_size
        return self._used == places or len(self.reasons) >= _REJECTS_PER_PLACE * places

    def add(self, photo: Loaded) -> None:
        if isinstance(photo, RejectReason):
            self.reasons.append(photo)
            return
        self._pixels[self._used] = photo
        self._used += 1
        self.reasons.append(None)

    def start(self) -> None:
        if self._used:
            self._wait = self._runtime.start(self._pixels)

    def finish(self) -> Iterator[EmbeddedPhoto]:
        vectors: Iterator[npt.NDArray[np.float16]] = iter(())
        if self._wait is not None:
            features = np.clip(self._wait(), -_FLOAT16_MAX, _FLOAT16_MAX)
            vectors = iter(features[: self._used].astype(np.float16))
        for reason in self.reasons:
            yield EmbeddedPhoto(next(vectors) if reason is None else None, reason)
