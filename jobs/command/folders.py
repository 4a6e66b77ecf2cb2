"""Folders that driver and executors reach: mounted ones, and those of Hadoop's file systems."""

import shutil
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

from jobs.command.session import local_uri
from jobs.command.spark_errors import root_cause
from schemas.errors import SettingsError
from seer_model.processes import scratch_folder

__all__ = ["Folder", "HadoopFolder", "LocalFolder", "open_folder"]


class Folder(ABC):
    """A folder that need not exist.

    Attributes:
        uri: Its address, as Spark takes it.
        name: The last part of its path.
        path: Its path if it is local or mounted, else None.
    """

    uri: str
    name: str
    path: Path | None = None

    @abstractmethod
    def __truediv__(self, name: str) -> "Folder": ...

    @abstractmethod
    def children(self) -> "list[Folder]":
        """The folders in it; none if it does not exist."""

    @abstractmethod
    def write_text(self, name: str, text: str) -> None:
        """Write a file in it; creates the folder if it is missing."""

    @abstractmethod
    def read_text(self, name: str) -> str:
        """Read a file in it, empty if there is none."""

    @abstractmethod
    def newest(self) -> float:
        """When the newest file in it was written, in seconds since 1970; 0 if it has none."""

    @abstractmethod
    def remove(self) -> None:
        """Remove it with all that is in it, if it exists."""

    @abstractmethod
    def fetch(self) -> Path:
        """Its files on this machine: itself, or a copy that goes with this process."""

    @abstractmethod
    def take(self, file: Path) -> "Folder":
        """Move a file of this machine into it; returns what Spark reads there."""


class LocalFolder(Folder):
    """A folder on a local or mounted file system."""

    path: Path

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uri = local_uri(path)
        self.name = path.name

    def __truediv__(self, name: str) -> "LocalFolder":
        return LocalFolder(self.path / name)

    def children(self) -> list[Folder]:
        """The folders in it."""
        return [LocalFolder(path) for path in sorted(self._files()) if path.is_dir()]

    def write_text(self, name: str, text: str) -> None:
        """Write a file in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(text, encoding="utf-8")

    def read_text(self, name: str) -> str:
        """Read a file in it."""
        file = self.path / name
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""

    def newest(self) -> float:
        """When the newest file was written."""
        return max((path.stat().st_mtime for path in self._files() if path.is_file()), default=0.0)

    def remove(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def fetch(self) -> Path:
        """Itself."""
        return self.path

    def take(self, file: Path) -> "LocalFolder":
        """Move a file of this machine into it."""
        return LocalFolder(Path(shutil.move(file, self.path / file.name)))

    def _files(self) -> list[Path]:
        return list(self.path.iterdir()) if self.path.is_dir() else []


class HadoopFolder(Folder):
    """A folder on one of the file systems that Spark has a driver for, such as HDFS or S3."""

    def __init__(self, spark: SparkSession, uri: str) -> None:
        assert spark._jvm is not None  # noqa: S101
        self._spark = spark
        self._at = spark._jvm.org.apache.hadoop.fs.Path(uri)
        self.uri = uri.rstrip("/")
        self.name = self.uri.rpartition("/")[2]

    @property
    def _files(self) -> Any:
        return self._at.getFileSystem(self._spark.sparkContext._jsc.hadoopConfiguration())

    def __truediv__(self, name: str) -> "HadoopFolder":
        return HadoopFolder(self._spark, f"{self.uri}/{name}")

    def children(self) -> list[Folder]:
        """The folders in it."""
        return [
            self / status.getPath().getName() for status in self._list() if status.isDirectory()
        ]

    def write_text(self, name: str, text: str) -> None:
        """Write a file in it."""
        stream = self._files.create((self / name)._at, True)
        try:
            stream.write(bytearray(text, "utf-8"))
        finally:
            stream.close()

    def read_text(self, name: str) -> str:
        """Read a file in it."""
        file = (self / name)._at
        if not self._files.exists(file):
            return ""
        stream = self._files.open(file)
        try:
            return bytes(stream.readAllBytes()).decode("utf-8", errors="replace")
        finally:
            stream.close()

    def newest(self) -> float:
        """When the newest file was written."""
        times = [each.getModificationTime() for each in self._list() if each.isFile()]
        return max(times, default=0) / 1000

    def remove(self) -> None:
        """Remove it."""
        self._files.delete(self._at, True)

    def fetch(self) -> Path:
        """A copy, which goes with this process."""
        assert self._spark._jvm is not None  # noqa: S101
        copy = Path(tempfile.mkdtemp(dir=scratch_folder())) / self.name
        target = self._spark._jvm.org.apache.hadoop.fs.Path(local_uri(copy))
        self._files.copyToLocalFile(False, self._at, target, True)
        return copy

    def take(self, file: Path) -> "HadoopFolder":
        """Move a file of this machine into it."""
        assert self._spark._jvm is not None  # noqa: S101
        source = self._spark._jvm.org.apache.hadoop.fs.Path(local_uri(file))
        self._files.copyFromLocalFile(True, True, source, (self / file.name)._at)
        return self / file.name

    def _list(self) -> list[Any]:
        return list(self._files.listStatus(self._at)) if self._files.exists(self._at) else []


def open_folder(spark: SparkSession, place: str | Path) -> Folder:
    """The folder of a path or of a URI; a path without a scheme is local or mounted.

    Raises:
        SettingsError: It is of a file system that Spark cannot reach, or not under Spark Connect.
    """
    if isinstance(place, str) and "://" in place and not place.startswith("file://"):
        if is_remote():
            raise SettingsError(
                f"{place}: this job does not reach it under Spark Connect; name a mounted folder"
            )
        folder = HadoopFolder(spark, place)
        try:
            folder.children()
        except Py4JJavaError as error:
            raise SettingsError(f"{place}: Spark cannot open it: {root_cause(error)}") from error
        return folder
    return LocalFolder(Path(str(place).removeprefix("file://")))
