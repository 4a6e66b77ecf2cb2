"""Bring rows that grow with the data to this process: through files, in bounded memory.

What Spark collects (`collect`, `toArrow`) passes through the driver's Java process as a whole, and
fails beyond `spark.driver.maxResultSize`. Files are written by the executors, and read or mapped
here as far as they are needed.
"""

import shutil
from collections.abc import Iterable, Iterator
from copy import copy
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from jobs.command.folders import Folder
from seer_model.photos.source import PhotoSource

__all__ = ["Spool", "SpooledPhotos"]

_VECTORS_AT_ONCE = 8192
# So many of the largest photos that are allowed fit into one Arrow array.
_PHOTOS_AT_ONCE = 32
# Without a page buffer, pyarrow would read a whole row group of photos at once.
_PAGE_BUFFER_BYTES = 1 << 20
_SOURCE = pa.schema(
    [("image_uri", pa.string()), ("image_bytes", pa.binary()), ("image_key", pa.string())]
)


class Spool:
    """Rows in Parquet files, in any order, but always the same.

    Args:
        folder: Folder of the files, which end in `.parquet`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def write(cls, frame: DataFrame, folder: Folder) -> Self:
        """Write the rows of a frame to a scratch folder that the executors see; overwrite it."""
        frame.write.mode("overwrite").parquet(folder.uri)
        return cls(folder.fetch())

    def read(self, *columns: str) -> pa.Table:
        """Read columns of all rows."""
        files = sorted(self._folder.glob("*.parquet"))
        return pa.concat_tables(pq.read_table(file, columns=list(columns)) for file in files)

    def read_vectors(self, places: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.float16]:
        """Read the column `vector` of all rows into one array.

        Args:
            places: Where in the array each row goes, int64, (rows,).
            width: Features of a vector.

        Returns:
            float16, (rows, width).
        """
        vectors = np.empty((len(places), width), np.float16)
        first = 0
        for batch in self._batches(["vector"], _VECTORS_AT_ONCE):
            data = b"".join(batch.column("vector").to_pylist())
            vectors[places[first : first + len(batch)]] = np.frombuffer(data, "<f2").reshape(
                -1, width
            )
            first += len(batch)
        return vectors

    def map_photos(self, rows: npt.NDArray[np.int64]) -> "SpooledPhotos":
        """Make one file of the photos, which replaces the others, and map it into memory.

        Args:
            rows: The rows wanted, in this order.
        """
        path = self._folder.with_suffix(".arrow")
        with pa.ipc.new_file(path, _SOURCE) as file:
            for batch in self._batches(_SOURCE.names, _PHOTOS_AT_ONCE):
                columns = [batch.column(name) for name in _SOURCE.names]
                file.write_batch(pa.RecordBatch.from_arrays(columns, schema=_SOURCE))
        shutil.rmtree(self._folder)
        return SpooledPhotos(pa.ipc.open_file(pa.memory_map(str(path))).read_all(), rows)

    def _batches(self, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        for path in sorted(self._folder.glob("*.parquet")):
            with pq.ParquetFile(path, buffer_size=_PAGE_BUFFER_BYTES) as file:
                yield from file.iter_batches(rows, columns=columns)


class SpooledPhotos:
    """Photos in a file that is mapped into memory: a photo's pages are read when it is.

    Args:
        table: `image_uri`, `image_bytes`, `image_key`.
        rows: The rows of the photos, int64, (photos,).
    """

    def __init__(self, table: pa.Table, rows: npt.NDArray[np.int64]) -> None:
        self._columns = [table.column(name) for name in _SOURCE.names]
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def some(self, numbers: Iterable[int]) -> "SpooledPhotos":
        """Some of the photos, by their numbers."""
        some = copy(self)
        some._rows = self._rows[list(numbers)]
        return some

    def __getitem__(self, number: int) -> PhotoSource:
        row = int(self._rows[number])
        return PhotoSource(*(column[row].as_py() for column in self._columns))
