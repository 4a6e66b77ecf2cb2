"""A manifest's photos as batches of pixels, epoch after epoch, without ever holding them all.

What a training step sees is a global batch of `batch_size * world_size` photos, of which each
process decodes a slice. A global batch depends on its size, the seed, the epoch and the step alone:
one process with batches of 2b sees what two processes with batches of b see together. It can be
entered at any step, and what lies before is not decoded.

A photo that cannot be used must not shift those after it, or a process would have to decode the
others' slices to know its own. So it keeps its slot, and another photo of the global batch is shown
there a second time (SwAV crops it anew). The step draws an order of up to 64 spares from all slots;
slot i tries spare i, i + 1 and so on, round and round, until one can be used. Whether a photo can
be used is up to the photo, so every process of every world size finds the same; only a store that
fails at times can break that.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from schemas.errors import DataContractError, SettingsError
from schemas.rejects import RejectReason
from seer_model.photo_source import PhotoSource, load_photo
from seer_model.photos import PhotoLimits, PhotoRejected
from seer_model.preprocessing import Preprocessing
from seer_model.pretraining.photo_references import PhotoReferences

__all__ = ["PhotoStream"]

_BATCHES_AHEAD = 2
_SPARES = 64

Pixels = npt.NDArray[np.uint8]


class _Decoding(NamedTuple):
    """A batch whose slots threads fill, each of which tells why its own photo was replaced."""

    pixels: Pixels
    rejects: list[Future[RejectReason | None]]


class PhotoStream:
    """The slice of one process of a shuffled stream of photos.

    Args:
        manifest: Folder or address of the manifest (`schemas.manifest`); of its columns
            `image_uri`, `image_bytes` and, if `splits` is given, `split` are read.
        splits: Use only the photos of these splits; None uses all.
        photo_size: Side of the squares that come out, in pixels: a photo's short side is resized to
            it and the centre cropped.
        batch_size: Photos a batch of this process.
        seed: Of the order, from 0.
        rank: Which process this is, from 0.
        world_size: How many processes there are; all other arguments must be the same in each.
        decode_threads: Photos read and decoded at the same time.
        shuffle_buffer: References among which the next photo is drawn. Of a manifest that holds
            the photos themselves, that many encoded photos are in memory, in each process, and
            each process reads the whole manifest.
        limits: Limits on a photo.

    Attributes:
        steps_per_epoch: Batches an epoch; photos that do not fill a last global batch are left out.
        fingerprint: Of the manifest and splits: only while it is the same can an epoch be resumed.
        rejects: How many photos of this process's batches so far could not be used, by reason.

    Raises:
        DataContractError: The manifest cannot be used, or holds no photo of the splits.
        SettingsError: It holds fewer photos than a global batch.
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        manifest: str | Path,
        *,
        splits: Collection[str] | None = None,
        photo_size: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        decode_threads: int = 1,
        shuffle_buffer: int = 8192,
        limits: PhotoLimits = PhotoLimits(),  # noqa: B008 - frozen
    ) -> None:
        if min(photo_size, batch_size, decode_threads, shuffle_buffer) < 1:
            raise ValueError("sizes and the number of threads must be 1 or more")
        if not 0 <= rank < world_size or seed < 0:
            raise ValueError("rank must be from 0 and below world_size, and seed 0 or more")
        self._preprocessing = Preprocessing(image_size=photo_size)
        self._seed = seed
        self._global_batch = batch_size * world_size
        self._slice = range(rank * batch_size, (rank + 1) * batch_size)
        self._decode_threads = decode_threads
        self._shuffle_buffer = shuffle_buffer
        self._limits = limits
        self._references = PhotoReferences(str(manifest), splits, threads=decode_threads)
        self.fingerprint = self._references.fingerprint
        self.steps_per_epoch = self._references.count // self._global_batch
        if self.steps_per_epoch == 0:
            raise SettingsError(
                f"{manifest}: {self._references.count} photos do not fill one batch of "
                f"{self._global_batch} ({batch_size} in each of {world_size} processes); "
                "choose a smaller batch size"
            )
        self.rejects: Counter[RejectReason] = Counter()

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[torch.Tensor]:
        """The batches of an epoch, those from `start_step` on.

        At most two are decoded ahead. Closing the iterator ends its threads.

        Args:
            epoch: From 0; each has an order of its own.
            start_step: Batches of this epoch to leave out.

        Yields:
            Pixels, uint8, of shape (batch_size, photo_size, photo_size, 3).

        Raises:
            DataContractError: A file of the manifest is damaged or was changed, or neither a photo
                nor any of those to replace it can be used.
            ValueError: There is no such epoch or step.
        """
        if epoch < 0 or not 0 <= start_step <= self.steps_per_epoch:
            raise ValueError(
                f"epoch must be 0 or more and step at most {self.steps_per_epoch}, "
                f"not {epoch} and {start_step}"
            )
        return self._batches(epoch, start_step)

    def _batches(self, epoch: int, start_step: int) -> Iterator[torch.Tensor]:
        references = self._references.shuffled(
            np.random.default_rng((0, self._seed, epoch)),
            self._shuffle_buffer,
            skip=start_step * self._global_batch,
        )
        reader = ThreadPoolExecutor(1, thread_name_prefix="references")
        pool = ThreadPoolExecutor(self._decode_threads, thread_name_prefix="stream-decode")
        decoding: deque[_Decoding] = deque()
        try:
            following = reader.submit(self._take, references)
            for step in range(start_step, self.steps_per_epoch):
                sources = following.result()
                following = reader.submit(self._take, references)
                decoding.append(self._decode(pool, sources, epoch, step))
                if len(decoding) > _BATCHES_AHEAD:
                    yield self._finish(decoding.popleft())
            while decoding:
                yield self._finish(decoding.popleft())
        finally:
            pool.shutdown(cancel_futures=True)
            reader.shutdown(cancel_futures=True)

    def _take(self, references: Iterator[PhotoSource]) -> list[PhotoSource]:
        return list(islice(references, self._global_batch))

    def _decode(
        self, pool: ThreadPoolExecutor, sources: list[PhotoSource], epoch: int, step: int
    ) -> _Decoding:
        rng = np.random.default_rng((1, self._seed, epoch, step))
        spares = [sources[slot] for slot in rng.permutation(len(sources))[:_SPARES]]
        size = self._preprocessing.image_size
        pixels = np.empty((len(self._slice), size, size, 3), np.uint8)
        rejects = [
            pool.submit(self._fill, out, sources[slot], spares, slot)
            for slot, out in zip(self._slice, pixels, strict=True)
        ]
        return _Decoding(pixels, rejects)

    def _fill(
        self, out: Pixels, source: PhotoSource, spares: Sequence[PhotoSource], slot: int
    ) -> RejectReason | None:
        """Put a photo or its replacement into a slot; says what was wrong with the photo."""
        reject = self._load(out, source)
        if reject is None:
            return None
        for turn in range(len(spares)):
            if self._load(out, spares[(slot + turn) % len(spares)]) is None:
                return reject
        raise DataContractError(
            f"{source.uri or 'a photo in the manifest'}: {reject.value}, and so on for the "
            f"{len(spares)} photos of its batch that might replace it; check where the photos are"
        )

    def _load(self, out: Pixels, source: PhotoSource) -> RejectReason | None:
        try:
            out[:] = load_photo(source, self._preprocessing, self._limits)
        except PhotoRejected as rejected:
            return rejected.reason
        return None

    def _finish(self, decoding: _Decoding) -> torch.Tensor:
        reasons = [future.result() for future in decoding.rejects]
        self.rejects.update(reason for reason in reasons if reason is not None)
        return torch.from_numpy(decoding.pixels)
