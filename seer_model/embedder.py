"""Photos in, feature vectors out: reading, decoding and the model work beside one another.

    sources -> PhotoLoader (readers, decoders) -> batches -> Runtime -> vectors, in order

Each stage is bounded: so many photos are under way before the batch that is being filled, and so
many batches are with the runtime.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.rejects import RejectReason
from seer_model.backbone import Backbone
from seer_model.byte_budget import ByteBudget
from seer_model.decoding_process import DecodingProcess
from seer_model.photo_loader import Loaded, PhotoLoader
from seer_model.photo_source import PhotoSource, load_photo
from seer_model.photos import PhotoLimits
from seer_model.runtime import Features, Runtime, open_runtime

__all__ = ["EmbeddedPhoto", "PhotoEmbedder"]

_BATCHES_LOADED_AHEAD = 4
_BATCHES_RUNNING = 2
# Batches that many rejects fill, so that they do not wait for ever for a photo that can be used.
_REJECTS_A_BATCH = 4
_FLOAT16_MAX = float(np.finfo(np.float16).max)


class EmbeddedPhoto(NamedTuple):
    """A photo's feature vector, float16 of shape (width,), or why there is none."""

    vector: npt.NDArray[np.float16] | None
    reject_reason: RejectReason | None


class PhotoEmbedder:
    """A runtime fed with photos.

    Every batch has the runtime's size, filled up with black photos where the sources end, and no
    photo's vector depends on those beside it.

    Args:
        runtime: The backbone, ready to run.
        decode_threads: Photos decoded at the same time.
        limits: Limits on photos, and on the memory they take together.
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
            load_photo, preprocessing=runtime.preprocessing, limits=limits, memory=memory
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
        """An embedder on the fastest runtime of a device, see `open_runtime`.

        Args:
            backbone: What to run.
            device: torch's name of the device.
            threads: Threads to decode on and, on a CPU, to compute on.
            batch_size: Photos a batch.
            limits: Limits on photos.
        """
        runtime = open_runtime(backbone, device, threads=threads, batch_size=batch_size)
        return cls(runtime, decode_threads=threads, limits=limits)

    def embed(
        self, sources: Iterable[PhotoSource], *, apart: bool = False
    ) -> Generator[EmbeddedPhoto, None, None]:
        """Embed photos in their order; a photo that cannot be used comes out with its reason.

        Reads some batches of `sources` ahead. Closing the generator drops what has not begun.

        Args:
            sources: Photos.
            apart: Decode in another process, one photo at a time: slower, but a photo that brings
                the decoder down is rejected, and this process lives.
        """
        if not apart:
            yield from self._embed(self._loader, sources)
            return
        # The loader first, since its thread talks to the process.
        with (
            closing(DecodingProcess(self.runtime.preprocessing, self._limits)) as process,
            closing(PhotoLoader(process.load, decode_threads=1, limits=self._limits)) as loader,
        ):
            yield from self._embed(loader, sources)

    def _embed(
        self, loader: PhotoLoader, sources: Iterable[PhotoSource]
    ) -> Generator[EmbeddedPhoto, None, None]:
        loaded = loader.load(sources, ahead=_BATCHES_LOADED_AHEAD * self.runtime.batch_size)
        running: deque[_Batch] = deque()
        try:
            for batch in self._batches(loaded):
                batch.start()
                running.append(batch)
                if len(running) > _BATCHES_RUNNING:
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
    """Photos that go through the runtime together, and the rejects among them."""

    def __init__(self, runtime: Runtime) -> None:
        size = runtime.preprocessing.image_size
        self._runtime = runtime
        self._pixels = np.zeros((runtime.batch_size, size, size, 3), np.uint8)
        self._used = 0
        self._wait: Callable[[], Features] | None = None
        self.reasons: list[RejectReason | None] = []

    @property
    def is_full(self) -> bool:
        most = self._runtime.batch_size
        return self._used == most or len(self.reasons) >= _REJECTS_A_BATCH * most

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
