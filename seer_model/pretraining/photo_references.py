"""Where the photos of a manifest are, in a shuffled order that can be entered anywhere.

Only references, addresses or encoded photos, are read here; never a pixel. No more of them than the
shuffle buffer holds are in memory.
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
from schemas.manifest import check_manifest
from seer_model.photo_source import PhotoSource

__all__ = ["PhotoReferences"]

# A row group may hold more encoded photos than memory does, so it is read page by page. Without a
# buffer for pages, pyarrow reads a whole column of it at once.
_ROWS_AT_ONCE = 64
_PAGE_BUFFER_BYTES = 1 << 20


class _RowGroup(NamedTuple):
    file: str
    position: int
    photos: int


class _Held(NamedTuple):
    """A row in the shuffle buffer; its source is not read as long as the order is skipped."""

    group: int
    row: int
    source: PhotoSource


_UNREAD = PhotoSource(None, None)


class PhotoReferences:
    """The references of a manifest's photos.

    Args:
        manifest: Folder or address of the Parquet manifest, partitioned or not. Files and folders
            whose names begin with `_` or `.` are ignored.
        splits: Keep only the rows whose `split` is one of these; None keeps all.
        threads: Files whose footers are read at the same time.

    Attributes:
        count: How many there are.
        fingerprint: SHA-256 (hex) of the splits and of the files' names and row counts: as long as
            it is the same, so is the order that a generator makes.

    Raises:
        DataContractError: There is no such manifest, a file is not Parquet, a column is missing or
            of the wrong type, or no row is kept.
    """

    def __init__(self, manifest: str, splits: Collection[str] | None, *, threads: int = 1) -> None:
        self._splits = None if splits is None else sorted(splits)
        self._columns = {"image_uri", "image_bytes"} | (set() if splits is None else {"split"})
        with _naming(manifest):
            # With a schema nothing is read yet; each file's own is looked at below.
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
        """All references but the first `skip`, in the order that the generator makes.

        Row groups come in random order; their rows pass through a buffer in which each newcomer
        takes the place, and puts out the occupant, of a random slot. The order depends on row
        counts alone, so what is skipped is not read; but rows that stay in the buffer are.

        Raises:
            DataContractError: A file is damaged, or is no longer the one it was.
        """
        held: list[_Held] = []
        entered = left = 0
        for group in rng.permutation(len(self._groups)).tolist():
            photos = self._groups[group].photos
            slots = rng.integers(buffer_size, size=photos)
            entered += photos
            sources: Iterator[PhotoSource]
            if entered - buffer_size <= skip:  # All that leaves meanwhile is skipped.
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
        """Read what the buffer holds unread."""
        unread: dict[int, dict[int, int]] = {}
        for slot, entry in enumerate(held):
            if entry.source is _UNREAD:
                unread.setdefault(entry.group, {})[entry.row] = slot
        for group, slots in unread.items():
            for row, source in enumerate(self._read(self._groups[group])):
                if row in slots:
                    held[slots[row]] = _Held(group, row, source)

    def _read(self, group: _RowGroup) -> Iterator[PhotoSource]:
        """The rows of a row group that are kept, a few at a time."""
        count = 0
        with _naming(group.file), self._open(group.file) as parquet:
            columns = sorted(self._columns & set(parquet.schema_arrow.names))
            groups = [group.position] if group.position < parquet.num_row_groups else []
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, groups, columns, use_threads=False):
                kept = repeat(True) if self._splits is None else self._in_splits(batch).to_pylist()
                for row in compress(batch.to_pylist(), kept):
                    count += 1
                    yield PhotoSource(row.get("image_uri"), row.get("image_bytes"))
        if count != group.photos:
            raise DataContractError(f"{group.file}: was changed while it was in use")

    def _inspect(self, file: str) -> list[_RowGroup]:
        with _naming(file), self._open(file) as parquet:
            check_manifest(parquet.schema_arrow, file)
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
    """Make what pyarrow raises one line that begins with what was read."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataContractError(f"{where}: no such file or folder") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataContractError(f"{where}: not readable as Parquet ({reason})") from error


def _short(file: str) -> str:
    """A file's name, with its partition's if it has one, and without the folder of the manifest."""
    *folders, name = file.split("/")
    return "/".join([*(folder for folder in folders if "=" in folder), name])
