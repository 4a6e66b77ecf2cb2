"""Embed photos in a pipeline: fetching, decoding and the trunk run concurrently.

    sources -> PhotoLoader (fetch and decode threads) -> batches -> Runtime -> embeddings, in order

Backpressure bounds each stage: a number of photos is prefetched, a number of batches in flight.

Whatever else is asked of a photo, its perceptual hashes, its text and its colours, is read as it is
decoded, so that no photo is fetched twice.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from schemas.rejects import RejectReason
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.runtimes.base import Features, Runtime
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.photos.byte_budget import ByteBudget
from seer_model.photos.colours import Colour, subject_colours
from seer_model.photos.fetch import fetch_photo
from seer_model.photos.isolated import IsolatedDecoder
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from seer_model.photos.loader import PhotoLoader
from seer_model.photos.perceptual_hash import PhotoHashes
from seer_model.photos.pixels import Pixels, resize_square
from seer_model.photos.source import PhotoSource
from seer_model.photos.square import Square, decode_square, load_square, load_whole

__all__ = ["EmbeddedPhoto", "PhotoEmbedder", "TextLine", "TextReader"]

_BATCHES_PREFETCHED = 4
_BATCHES_IN_FLIGHT = 2
# A batch is also full with this many rejects a place, so that they need not wait for a good photo.
_REJECTS_PER_PLACE = 4
_FLOAT16_MAX = float(np.finfo(np.float16).max)

Vector = npt.NDArray[np.float16]


class TextLine(NamedTuple):
    """A line of text in a photo.

    Attributes:
        line: What was read.
        score: How sure the reader is of it, up to 1.
        share: Of the photo's area that it takes.
    """

    line: str
    score: float
    share: float


class TextReader(Protocol):
    """Reads what is written in photos."""

    @property
    def short_side(self) -> int:
        """Pixels that the short side of a photo needs for its text to be read."""

    def read(self, pixels: Pixels) -> list[TextLine]:
        """Read a whole photo, uint8, (rows, columns, 3)."""


class EmbeddedPhoto(NamedTuple):
    """What was made of a photo.

    Attributes:
        vector: Its embedding, float16 of shape (width,); None if it cannot be used.
        reject_reason: Why it cannot be used.
        hashes: Its perceptual hashes, if they were asked for.
        text: Its lines of text, if they were asked for.
        colours: Its subject's colours, if they were asked for.
    """

    vector: Vector | None
    reject_reason: RejectReason | None
    hashes: PhotoHashes | None = None
    text: list[TextLine] | None = None
    colours: list[Colour] | None = None


class _Signals(NamedTuple):
    hashes: PhotoHashes | None
    text: list[TextLine] | None
    colours: list[Colour] | None


class _Loaded(NamedTuple):
    pixels: Pixels
    signals: _Signals


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
        self._memory = ByteBudget(limits.max_decode_memory)
        self._loader = PhotoLoader(decode_threads=decode_threads, limits=limits)

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
        self,
        sources: Iterable[PhotoSource],
        *,
        isolated: bool = False,
        hashed: bool = False,
        coloured: bool = False,
        reader: TextReader | None = None,
    ) -> Generator[EmbeddedPhoto, None, None]:
        """Embed photos, in order; a photo that cannot be used yields its reject reason.

        Prefetches a few batches of `sources`. Closing the generator drops photos not yet started.

        Args:
            sources: The photos.
            isolated: Decode in a separate process, one photo at a time: slower, but survives a
                photo that crashes the decoder, and rejects it.
            hashed: Make the perceptual hashes, too.
            coloured: Name the colours, too.
            reader: Reads the text, too.
        """
        size = self.runtime.preprocessing.image_size
        if not isolated:
            decoder = _Decoder(size, hashed, coloured, reader, self._limits, self._memory)
            yield from self._embed(self._loader, sources, decoder)
            return
        # The loader closes first: its thread uses the process.
        with (
            closing(IsolatedDecoder()) as process,
            closing(PhotoLoader(decode_threads=1, limits=self._limits)) as loader,
        ):
            decoder = _Decoder(size, hashed, coloured, reader, self._limits, None, process)
            yield from self._embed(loader, sources, decoder)

    def _embed(
        self, loader: PhotoLoader, sources: Iterable[PhotoSource], decoder: "_Decoder"
    ) -> Generator[EmbeddedPhoto, None, None]:
        ahead = _BATCHES_PREFETCHED * self.runtime.batch_size
        loaded = loader.load(sources, decoder.load, ahead=ahead)
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

    def _batches(self, loaded: Iterable[_Loaded | RejectReason]) -> Iterator["_Batch"]:
        batch = _Batch(self.runtime)
        for photo in loaded:
            batch.add(photo)
            if batch.is_full:
                yield batch
                batch = _Batch(self.runtime)
        if batch.photos:
            yield batch


class _Decoder:
    """What is decoded of a photo, in this process or in another one.

    Args:
        size: Side of the square that the trunk takes.
        hashed: Whether to make the perceptual hashes.
        coloured: Whether to name the colours.
        reader: What reads the text, if anything does.
        limits: Limits on photos.
        memory: Of all threads that decode in this process.
        process: Where to decode instead.
    """

    def __init__(
        self,
        size: int,
        hashed: bool,
        coloured: bool,
        reader: TextReader | None,
        limits: PhotoLimits,
        memory: ByteBudget | None,
        process: IsolatedDecoder | None = None,
    ) -> None:
        self._size = size
        self._hashed = hashed
        self._coloured = coloured
        self._reader = reader
        self._limits = limits
        self._memory = memory
        self._process = process

    def load(self, source: PhotoSource) -> _Loaded:
        """Decode a photo whose bytes are present."""
        square = self._square(source)
        # The memory of the first decoding is free again before the second asks for its own.
        text = self._read_text(source)
        colours = subject_colours(square.pixels) if self._coloured else None
        return _Loaded(square.pixels, _Signals(square.hashes, text, colours))

    def _square(self, source: PhotoSource) -> Square:
        """The pixels for the trunk, and the hashes."""
        if self._process is None:
            data = fetch_photo(source, self._limits)
            with decode_square(
                data, self._size, self._limits, self._memory, hashed=self._hashed
            ) as square:
                return self._resized(square)
        load = partial(load_square, size=self._size, limits=self._limits, hashed=self._hashed)
        return self._resized(self._process.load(load, source))

    def _resized(self, square: Square) -> Square:
        return square._replace(pixels=resize_square(square.pixels, self._size))

    def _read_text(self, source: PhotoSource) -> list[TextLine] | None:
        """Read a photo's text, if that was asked for and the photo can be decoded for it."""
        if self._reader is None:
            return None
        load = partial(load_whole, short_side=self._reader.short_side, limits=self._limits)
        try:
            if self._process is None:
                pixels = load(source, memory=self._memory)
            else:
                pixels = self._process.load(load, source)
        except PhotoRejected:
            return None
        return self._reader.read(pixels)


class _Batch:
    """Photos that the runtime takes together, and the rejects between them."""

    def __init__(self, runtime: Runtime) -> None:
        size = runtime.preprocessing.image_size
        self._runtime = runtime
        self._pixels = np.zeros((runtime.batch_size, size, size, 3), np.uint8)
        self._used = 0
        self._wait: Callable[[], Features] | None = None
        self.photos: list[_Signals | RejectReason] = []

    @property
    def is_full(self) -> bool:
        places = self._runtime.batch_size
        return self._used == places or len(self.photos) >= _REJECTS_PER_PLACE * places

    def add(self, photo: _Loaded | RejectReason) -> None:
        if isinstance(photo, RejectReason):
            self.photos.append(photo)
            return
        self._pixels[self._used] = photo.pixels
        self._used += 1
        self.photos.append(photo.signals)

    def start(self) -> None:
        if self._used:
            self._wait = self._runtime.start(self._pixels)

    def finish(self) -> Iterator[EmbeddedPhoto]:
        vectors: Iterator[Vector] = iter(())
        if self._wait is not None:
            features = np.clip(self._wait(), -_FLOAT16_MAX, _FLOAT16_MAX)
            vectors = iter(features[: self._used].astype(np.float16))
        for photo in self.photos:
            if isinstance(photo, RejectReason):
                yield EmbeddedPhoto(None, photo)
            else:
                yield EmbeddedPhoto(next(vectors), None, *photo)
