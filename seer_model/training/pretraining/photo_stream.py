"""Stream a manifest's photos as batches of pixels, shuffled anew in every epoch.

A training step sees a global batch of `batch_size * world_size` photos, of which each process
decodes a slice. A global batch depends only on its size, the seed, the epoch and the step: one
process with batches of 2b sees what two processes with batches of b see together. An epoch can
start at any step, without decoding the photos before it.

An unusable photo must not shift those after it, or processes would have to decode each other's
slices. So it keeps its slot, which shows another photo of the global batch a second time (with
other crops). Each step draws up to 64 spares from all slots; slot i tries spares i, i + 1, …,
cyclically, until one is usable. Every process finds the same photos unusable, unless remote storage
fails intermittently.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import torch

from schemas.errors import DataContractError, SettingsError
from schemas.rejects import RejectReason
from seer_model.photos.fetch import missing_driver
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from seer_model.photos.pixels import load_photo
from seer_model.photos.source import PhotoSource
from seer_model.training.pretraining.photo_references import PhotoReferences

__all__ = ["PhotoStream"]

_BATCHES_AHEAD = 2
_SPARES = 64

Pixels = npt.NDArray[np.uint8]


class _Decoding(NamedTuple):
    """A batch in flight; each slot's future gives the reason why its photo was replaced."""

    pixels: Pixels
    rejects: list[Future[RejectReason | None]]


class PhotoStream:
    """One process's slice of a shuffled stream of photos.

    Args:
        manifest: Folder or URI of the manifest (`schemas.manifest`), with the columns `image_uri`,
            `image_bytes` or both, and `split` if `splits` is given.
        splits: Use only photos of these splits; None uses all.
        photo_size: Side of the decoded squares, in pixels: the photo's short side is resized to it
            and the centre cropped.
        batch_size: Photos per batch of this process.
        seed: Seed of the order, from 0.
        rank: This process's number, from 0.
        world_size: Number of processes; all other arguments must be the same in each of them.
        decode_threads: Photos read and decoded in parallel.
        shuffle_buffer: References from which the next photo is drawn. If the manifest contains
            encoded photos, each process holds this many in memory and reads the whole manifest.
        limits: Limits on a photo.

    Attributes:
        steps_per_epoch: Batches per epoch; an incomplete last global batch is dropped.
        fingerprint: Digest of manifest and splits; an epoch can be resumed only if it is unchanged.
        rejects: Unusable photos in this process's batches so far, by reason.

    Raises:
        DataContractError: The manifest is unreadable, or has no photo of the splits.
        SettingsError: The manifest has fewer photos than a global batch.
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
            raise ValueError(
                "photo_size, batch_size, decode_threads and shuffle_buffer must be 1 or more"
            )
        if not 0 <= rank < world_size or seed < 0:
            raise ValueError("rank must be within [0, world_size) and seed 0 or more")
        self._photo_size = photo_size
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
        """Decode the batches of an epoch, prefetching at most two.

        Closing the iterator ends its threads.

        Args:
            epoch: From 0; every epoch has its own order.
            start_step: Batches of this epoch to skip.

        Yields:
            Pixels, uint8, (batch_size, photo_size, photo_size, 3).

        Raises:
            DataContractError: A file of the manifest is damaged or was changed, or neither a photo
                nor any of its spares is usable.
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
        size = self._photo_size
        pixels = np.empty((len(self._slice), size, size, 3), np.uint8)
        rejects = [
            pool.submit(self._fill, out, sources[slot], spares, slot)
            for slot, out in zip(self._slice, pixels, strict=True)
        ]
        return _Decoding(pixels, rejects)

    def _fill(
        self, out: Pixels, source: PhotoSource, spares: Sequence[PhotoSource], slot: int
    ) -> RejectReason | None:
        """Decode a photo or a spare into a slot; returns why the photo is unusable, if it is."""
        reject = self._load(out, source)
        if reject is None:
            return None
        for turn in range(len(spares)):
            if self._load(out, spares[(slot + turn) % len(spares)]) is None:
                return reject
        raise DataContractError(
            f"{source.uri or 'a photo in the manifest'}: {reject.value}, and none of the "
            f"{len(spares)} photos of its batch that might replace it is usable; {_advice(source)}"
        )

    def _load(self, out: Pixels, source: PhotoSource) -> RejectReason | None:
        try:
            out[:] = load_photo(source, self._photo_size, self._limits)
        except PhotoRejected as rejected:
            return rejected.reason
        return None

    def _finish(self, decoding: _Decoding) -> torch.Tensor:
        reasons = [future.result() for future in decoding.rejects]
        self.rejects.update(reason for reason in reasons if reason is not None)
        return torch.from_numpy(decoding.pixels)


def _advice(unusable: PhotoSource) -> str:
    scheme = urlsplit(unusable.uri or "").scheme
    install = missing_driver(scheme) if scheme else None
    return install or "check that the photos are where the manifest says"
