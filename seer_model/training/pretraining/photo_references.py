"""Read a manifest's photo references in shuffled order, from any position.

A reference is a photo's URI or its encoded bytes. Memory is bounded by the shuffle buffer.
"""

import hashlib
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import compress, repeat
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from schemas.errors import DataContractError
from schemas.manifest import check_manifest, manifest_columns
from seer_model.photos.source import PhotoSource

__all__ = ["PhotoReferences"]

# A row group of encoded photos may exceed memory, so it is read page by page. Without a page
# buffer, pyarrow would read a whole column of it at once.
_ROWS_AT_ONCE = 64
_PAGE_BUFFER_BYTES = 1 << 20


class _RowGroup(NamedTuple):
    file: str
    position: int
    photos: int


class _Held(NamedTuple):
    """A row in the shuffle buffer; its source stays unread while the order is being skipped."""

    group: int
    row: int
    source: PhotoSource


_SOURCE = ("image_uri", "image_bytes", "image_key")
_UNREAD = PhotoSource(None, None)


class PhotoReferences:
    """References of a manifest's photos.

    Args:
        manifest: Folder or URI of the Parquet manifest, partitioned or not. Files and folders whose
            names begin with `_` or `.` are ignored.
        splits: Keep only rows of these splits; None keeps all.
        threads: Files whose footers are read in parallel.

    Attributes:
        count: Number of references.
        fingerprint: SHA-256 (hex) of the splits and the files' names and row counts, which together
            with a generator determine the order.

    Raises:
        DataContractError: There is no such manifest, a file is not Parquet, a column is missing or
            has the wrong type, or no row is kept.
    """

    def __init__(self, manifest: str, splits: Collection[str] | None, *, threads: int = 1) -> None:
        self._splits = None if splits is None else sorted(splits)
        self._columns = {*_SOURCE} | (set() if splits is None else {"split"})
        with _naming(manifest):
            # An empty schema keeps pyarrow from reading a file here; `_inspect` checks each one's.
            dataset = pads.dataset(manifest, schema=pa.schema([]), format="parquet")
        self._filesystem = dataset.filesystem
        with ThreadPoolExecutor(threads, thread_name_prefix="footers") as pool:
            found = pool.map(self._inspect, sorted(dataset.files))
            self._groups = [group for groups in found for group in groups if group.photos]
        self.count = sum(group.photos for group in self._groups)
        if self.count == 0:
            which = "" if self._splits is None else f" in the splits {', '.join(self._splits)}"
            raise DataContractError(f"{manifest}: no photo{which}")
        identity = [self._splits, [(_short(file), *rest) for file, *rest in self._groups]]
        self.fingerprint = hashlib.sha256(repr(identity).encode()).hexdigest()

    def shuffled(
        self, rng: np.random.Generator, buffer_size: int, *, skip: int = 0
    ) -> Iterator[PhotoSource]:
        """Yield all references but the first `skip`, in an order drawn from the generator.

        Row groups come in random order. Their rows pass through a buffer, where each new row
        replaces, and so emits, the row in a random slot. The order depends only on row counts, so
        skipped rows are not read unless they are still in the buffer when the skipping ends.

        Raises:
            DataContractError: A file is damaged or was changed.
        """
        held: list[_Held] = []
        entered = left = 0
        for group in rng.permutation(len(self._groups)).tolist():
            photos = self._groups[group].photos
            slots = rng.integers(buffer_size, size=photos)
            entered += photos
            sources: Iterator[PhotoSource]
            if entered - buffer_size <= skip:  # All rows emitted meanwhile are skipped.
                sources = repeat(_UNREAD, photos)
            else:
                self._read_held(held)
                sources = self._read(self._groups[group])
            for row, (slot, source) in enumerate(zip(slots, sources, strict=True)):
                if len(held) < buffer_size:
                    held.append(_Held(group, row, source))
                    continue
                occupant, held[slot] = held[slot], _Held(group, row, source)
                left += 1
                if left > skip:
                    yield occupant.source
        self._read_held(held)
        for slot in rng.permutation(len(held))[max(0, skip - left) :]:
            yield held[slot].source

    def _read_held(self, held: list[_Held]) -> None:
        """Read the sources in the buffer that are still unread."""
        unread: dict[int, dict[int, int]] = {}
        for slot, entry in enumerate(held):
            if entry.source is _UNREAD:
                unread.setdefault(entry.group, {})[entry.row] = slot
        for group, slots in unread.items():
            for row, source in enumerate(self._read(self._groups[group])):
                if row in slots:
                    held[slots[row]] = _Held(group, row, source)

    def _read(self, group: _RowGroup) -> Iterator[PhotoSource]:
        """Read the kept rows of a row group, a few at a time."""
        count = 0
        with _naming(group.file), self._open(group.file) as parquet:
            columns = sorted(self._columns & set(parquet.schema_arrow.names))
            groups = [group.position] if group.position < parquet.num_row_groups else []
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, groups, columns, use_threads=False):
                kept = repeat(True) if self._splits is None else self._in_splits(batch).to_pylist()
                for row in compress(batch.to_pylist(), kept):
                    count += 1
                    yield PhotoSource(*map(row.get, _SOURCE))
        if count != group.photos:
            raise DataContractError(f"{group.file}: was changed during the training")

    def _inspect(self, file: str) -> list[_RowGroup]:
        with _naming(file), self._open(file) as parquet:
            check_manifest(manifest_columns(parquet.metadata), file)
            if self._splits is not None and "split" not in parquet.schema_arrow.names:
                raise DataContractError(f"{file}: column split is missing, expected string")
            return [
                _RowGroup(file, position, self._count(parquet, position))
                for position in range(parquet.num_row_groups)
            ]

    def _count(self, parquet: pq.ParquetFile, position: int) -> int:
        if self._splits is None:
            return int(parquet.metadata.row_group(position).num_rows)
        batches = parquet.iter_batches(row_groups=[position], columns=["split"], use_threads=False)
        return sum(self._in_splits(batch).true_count for batch in batches)

    def _in_splits(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        kinds = pa.array(self._splits, pa.string())
        return pc.is_in(batch.column("split").cast(pa.string()), value_set=kinds)

    def _open(self, file: str) -> pq.ParquetFile:
        return pq.ParquetFile(
            file,
            filesystem=self._filesystem,
            pre_buffer=False,
            buffer_size=_PAGE_BUFFER_BYTES,
            page_checksum_verification=True,
        )


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Turn pyarrow's errors into one line that begins with the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataContractError(f"{where}: no such file or folder") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataContractError(f"{where}: not readable as Parquet ({reason})") from error


def _short(file: str) -> str:
    """A file's name with its partition's, if any, but without the manifest's folder."""
    *folders, name = file.split("/")
    return "/".join([*(folder for folder in folders if "=" in folder), name])
