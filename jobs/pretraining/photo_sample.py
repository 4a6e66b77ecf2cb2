"""A random sample of a manifest's photos, read without Spark, to evaluate a backbone with."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from schemas.errors import DataContractError
from schemas.manifest import MANIFEST
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.photos.source import PhotoSource

__all__ = ["EmbeddedSample", "PhotoSample", "embed_sample", "sample_photos"]

_COLUMNS = ["listing_id", "category_id", "split", "image_uri", "image_bytes", "image_key"]
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class PhotoSample:
    """Photos of a manifest, in its order.

    Attributes:
        listing_ids: The photos' listings.
        labels: Their categories, where known.
        sources: Their URIs or bytes.
    """

    listing_ids: list[str]
    labels: list[str | None]
    sources: list[PhotoSource]

    def __len__(self) -> int:
        return len(self.sources)

    def where(self, keep: Sequence[bool]) -> "PhotoSample":
        """The photos for which `keep` is true."""
        columns: tuple[Iterable[Any], ...] = (self.listing_ids, self.labels, self.sources)
        return PhotoSample(*(list(compress(column, keep)) for column in columns))

    def apart_from(self, other: "PhotoSample") -> "PhotoSample":
        """The photos of listings that the other sample has not, less the photos that it has."""
        listings, photos = set(other.listing_ids), set(map(_identity, other.sources))
        mine = zip(self.listing_ids, self.sources, strict=True)
        return self.where(
            [
                listing not in listings and _identity(source) not in photos
                for listing, source in mine
            ]
        )


@dataclass(frozen=True)
class EmbeddedSample:
    """The usable photos of a sample and their embeddings, (photos, width)."""

    photos: PhotoSample
    vectors: npt.NDArray[np.float16]


def sample_photos(
    manifest: str, splits: Sequence[str] | None, limit: int, *, labelled: bool, seed: int
) -> PhotoSample:
    """Draw photos uniformly at random.

    A first pass reads the splits and labels and draws; then the drawn rows, with their encoded
    photos, are read into memory.

    Args:
        manifest: Folder or URI of the manifest.
        splits: Draw from these only; None draws from all.
        limit: Upper bound on the number of photos.
        labelled: Draw only photos whose category is known.
        seed: Seed of the draw.

    Raises:
        DataContractError: The manifest is unreadable.
    """
    try:
        dataset = _open(manifest)
        rng = np.random.default_rng(seed)
        drawn = np.empty((0, 2))
        first = 0
        for batch in dataset.to_batches(columns=["category_id", "split"]):
            rows = np.flatnonzero(_wanted(batch, splits, labelled))
            keyed = np.stack([rng.random(len(rows)), first + rows], axis=1)
            drawn = np.concatenate([drawn, keyed])
            drawn = drawn[drawn[:, 0].argsort(kind="stable")[:limit]]
            first += batch.num_rows
        indices = np.sort(drawn[:, 1].astype(np.int64))
        table = dataset.scanner(columns=_COLUMNS, batch_size=_ROWS_AT_ONCE).take(pa.array(indices))
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise DataContractError(f"{manifest}: not readable as Parquet ({reason})") from error
    rows = table.to_pylist()
    return PhotoSample(
        [row["listing_id"] for row in rows],
        [row["category_id"] for row in rows],
        [PhotoSource(row["image_uri"], row["image_bytes"], row["image_key"]) for row in rows],
    )


def _identity(source: PhotoSource) -> str | None:
    """What is the same for the same photo, as far as the manifest says."""
    if source.key:
        return source.key.lower()
    return source.uri if source.data is None else hashlib.sha256(source.data).hexdigest()


def _open(manifest: str) -> pads.Dataset:
    # A row group of encoded photos may exceed memory, so it is read page by page.
    options = pads.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False)
    return pads.dataset(
        manifest,
        schema=pa.schema([MANIFEST.field(name).with_nullable(True) for name in _COLUMNS]),
        format=pads.ParquetFileFormat(default_fragment_scan_options=options),
    )


def _wanted(
    batch: pa.RecordBatch, splits: Sequence[str] | None, labelled: bool
) -> npt.NDArray[np.bool_]:
    wanted = pa.array(np.ones(batch.num_rows, bool))
    if splits is not None:
        kinds = pa.array(list(splits), pa.string())
        wanted = pc.and_(wanted, pc.is_in(batch.column("split"), value_set=kinds))
    if labelled:
        wanted = pc.and_(wanted, pc.is_valid(batch.column("category_id")))
    kept: npt.NDArray[np.bool_] = wanted.to_numpy(zero_copy_only=False)
    return kept


def embed_sample(embedder: PhotoEmbedder, sample: PhotoSample) -> EmbeddedSample:
    """Embed the usable photos."""
    vectors = [photo.vector for photo in embedder.embed(sample.sources)]
    usable = sample.where([vector is not None for vector in vectors])
    found = [vector for vector in vectors if vector is not None]
    width = embedder.runtime.width
    return EmbeddedSample(usable, np.stack(found) if found else np.empty((0, width), np.float16))
