"""Photos in, feature vectors out: decode in threads, run the trunk in batches of one fixed size."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from schemas.rejects import RejectReason
from seer_model.backbone import Backbone
from seer_model.photo_source import PhotoSource, load_photo
from seer_model.photos import PhotoLimits, PhotoRejected
from seer_model.preprocessing import normalise

__all__ = ["EmbeddedPhoto", "PhotoEmbedder"]

Features = npt.NDArray[np.float16]
Pixels = npt.NDArray[np.uint8]


class EmbeddedPhoto(NamedTuple):
    """A photo's feature vector, float16 of shape (width,), or why there is none."""

    vector: Features | None
    reject_reason: RejectReason | None


class PhotoEmbedder:
    """A backbone on a device.

    Every batch that reaches the trunk has the same shape, filled up with black photos where there
    are too few, so that a photo's vector does not depend on the photos beside it.

    Args:
        backbone: The trunk and its preprocessing.
        device: torch's name of the device, `cpu` or `cuda:N`.
        batch_size: Photos a batch.
        decode_threads: Photos decoded at the same time.
        limits: Limits on a photo.
    """

    def __init__(
        self,
        backbone: Backbone,
        device: str = "cpu",
        batch_size: int = 32,
        decode_threads: int = 1,
        limits: PhotoLimits = PhotoLimits(),  # noqa: B008 - frozen
    ) -> None:
        self.backbone = backbone
        self.device = torch.device(device)
        self.batch_size = batch_size
        self._limits = limits
        self._trunk = backbone.build().to(self.device).to(memory_format=torch.channels_last)
        self._pool = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")

    def embed(self, sources: Iterable[PhotoSource]) -> Iterator[EmbeddedPhoto]:
        """Embed photos in their order; a photo that cannot be used comes out with its reason.

        While the trunk works on one batch the pool decodes the next.
        """
        rest = iter(sources)
        pending = self._decode_next(rest)
        while pending is not None:
            following = self._decode_next(rest)
            yield from self._embed_batch([future.result() for future in pending])
            pending = following

    def _decode_next(
        self, sources: Iterator[PhotoSource]
    ) -> list[Future[Pixels | RejectReason]] | None:
        batch = list(islice(sources, self.batch_size))
        return [self._pool.submit(self._load, source) for source in batch] if batch else None

    def _load(self, source: PhotoSource) -> Pixels | RejectReason:
        try:
            return load_photo(source, self.backbone.preprocessing, self._limits)
        except PhotoRejected as rejected:
            return rejected.reason

    def _embed_batch(self, loaded: Sequence[Pixels | RejectReason]) -> Iterator[EmbeddedPhoto]:
        pixels = [item for item in loaded if not isinstance(item, RejectReason)]
        vectors = iter(self.embed_pixels(pixels)) if pixels else iter(())
        for item in loaded:
            if isinstance(item, RejectReason):
                yield EmbeddedPhoto(None, item)
            else:
                yield EmbeddedPhoto(next(vectors), None)

    def embed_pixels(self, pixels: Sequence[Pixels]) -> Features:
        """Run the trunk on at most `batch_size` photos as `prepare_photo` returns them.

        Returns:
            Features, float16, of shape (photos, width).
        """
        size = self.backbone.preprocessing.image_size
        batch = np.zeros((self.batch_size, size, size, 3), np.uint8)
        batch[: len(pixels)] = np.stack(pixels)
        with torch.inference_mode():
            inputs = normalise(torch.from_numpy(batch).to(self.device), self.backbone.preprocessing)
            features: npt.NDArray[np.float32] = self._trunk(inputs).float().cpu().numpy()
        limit = float(np.finfo(np.float16).max)
        return np.clip(features[: len(pixels)], -limit, limit).astype(np.float16)
