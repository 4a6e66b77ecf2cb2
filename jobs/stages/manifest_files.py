"""List a manifest's Parquet files, and read the columns of each from its footer.

Spark would take the columns of one file for those of all, skip empty files, and refuse types that
no job reads. The footers are read through Spark's file systems, so a manifest may be wherever Spark
reads.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

from jobs.command.session import parquet_reader
from jobs.command.spark_errors import root_cause
from schemas.errors import DataContractError, SeerError, SettingsError
from schemas.manifest import MANIFEST, check_manifest, manifest_columns

__all__ = ["ManifestFile", "list_files", "list_partitions"]

_FOOTERS_AT_ONCE = 16
# Most footers fit; a longer one takes a second read.
_TAIL_BYTES = 1 << 16
_MAGIC = b"PAR1"
_END_BYTES = 4 + len(_MAGIC)  # The footer's length and the magic number.
# Codecs whose classes Spark does not ship.
_CODECS = {
    "BROTLI": "org.apache.hadoop.io.compress.BrotliCodec",
    "LZO": "com.hadoop.compression.lzo.LzoCodec",
}


class ManifestFile(NamedTuple):
    """A file with rows, and those of its columns that the contract has."""

    path: str
    columns: pa.Schema


def list_files(spark: SparkSession, folder: str) -> list[ManifestFile]:
    """List the files below a folder that have rows, but for hidden ones (`_…` and `.…`).

    Raises:
        DataContractError: There is no such folder or no row in it, a file is not Parquet, or one
            breaks the contract.
        SettingsError: Spark cannot open the folder, or is one of Spark Connect.
    """
    if is_remote():
        raise SettingsError(
            f"--manifest {folder}: Spark Connect reads no footers of files; name a table"
        )
    paths = _paths(spark, folder)
    threads = max(1, min(len(paths), _FOOTERS_AT_ONCE))
    with ThreadPoolExecutor(threads, thread_name_prefix="footers") as pool:
        found = pool.map(lambda path: _inspect(spark, path), paths)
        files = [
            ManifestFile(path, columns)
            for path, columns in zip(paths, found, strict=True)
            if columns is not None
        ]
    if not files:
        raise DataContractError(f"{folder}: the manifest has no row there; write it again")
    return files


def list_partitions(spark: SparkSession, manifest: str) -> list[str]:
    """List what is directly in a manifest's folder by name, but for hidden files and folders.

    Raises:
        DataContractError: There is no such folder.
        SettingsError: Spark cannot open it.
    """
    assert spark._jvm is not None  # noqa: S101
    try:
        at = spark._jvm.org.apache.hadoop.fs.Path(manifest)
        files = at.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
        names = [status.getPath().getName() for status in files.listStatus(at)]
    except (PySparkException, Py4JJavaError) as error:
        raise _cannot_open(manifest, error) from error
    return sorted(name for name in names if not name.startswith(("_", ".")))


def _paths(spark: SparkSession, folder: str) -> list[str]:
    # This only lists, so any schema will do.
    reader = parquet_reader(spark).option("recursiveFileLookup", True).schema("listing_id string")
    try:
        escaped = reader.parquet(folder).inputFiles()
    except (PySparkException, Py4JJavaError) as error:
        raise _cannot_open(folder, error) from error
    return sorted(map(unquote, escaped))


def _cannot_open(folder: str, error: Exception) -> SeerError:
    if any(sign in str(error) for sign in ("[PATH_NOT_FOUND]", "java.io.FileNotFoundException")):
        return DataContractError(f"{folder}: no such manifest")
    return SettingsError(f"--manifest {folder}: Spark cannot open it: {root_cause(error)}")


def _inspect(spark: SparkSession, path: str) -> pa.Schema | None:
    """Check a file; returns its columns of the contract, or None if it has no row."""
    try:
        metadata = _read_footer(spark, path)
    except (Py4JJavaError, pa.ArrowException, OSError) as error:
        raise DataContractError(
            f"{path}: is damaged, or cannot be read: {root_cause(error)}"
        ) from error
    if not metadata.num_rows:
        return None
    columns = manifest_columns(metadata)
    check_manifest(columns, path)
    _check_codecs(spark, metadata, path)
    return columns


def _read_footer(spark: SparkSession, path: str) -> pq.FileMetaData:
    assert spark._jvm is not None  # noqa: S101
    at = spark._jvm.org.apache.hadoop.fs.Path(path)
    files = at.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    size = files.getFileStatus(at).getLen()
    if size == 0:
        raise DataContractError(f"{path}: is empty, so rows are missing; write it again")
    stream = files.open(at)
    try:
        tail = _read_tail(stream, size, min(size, _TAIL_BYTES))
        if tail[-len(_MAGIC) :] != _MAGIC:
            raise DataContractError(
                f"{path}: is not Parquet, cut off or encrypted; write it again, or move it away"
            )
        length = int.from_bytes(tail[-_END_BYTES : -len(_MAGIC)], "little") + _END_BYTES
        if len(tail) < length <= size:
            tail = _read_tail(stream, size, length)
    finally:
        stream.close()
    return pq.read_metadata(pa.BufferReader(_MAGIC + tail[-length:]))


def _read_tail(stream: Any, size: int, length: int) -> bytes:
    stream.seek(size - length)
    return bytes(stream.readNBytes(length))


def _check_codecs(spark: SparkSession, metadata: pq.FileMetaData, path: str) -> None:
    assert spark._jvm is not None  # noqa: S101
    group = metadata.row_group(0)
    for chunk in map(group.column, range(group.num_columns)):
        name = _CODECS.get(chunk.compression)
        ours = chunk.path_in_schema.partition(".")[0] in MANIFEST.names
        if ours and name and not spark._jvm.org.apache.spark.util.Utils.classIsLoadable(name):
            raise DataContractError(
                f"{path}: is compressed with {chunk.compression}, for which this Spark has no "
                f"{name}; write it with zstd"
            )
