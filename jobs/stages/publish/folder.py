"""Publish a partition to a folder, atomically, one run at a time.

    OUTPUT/ds=DATE                   link to the published run: what readers see
    OUTPUT/_runs/ds=DATE/RUN_ID      rows that a run wrote
    OUTPUT/_locks/ds=DATE.lock       lock of the run at work

A run stages its rows in a folder of its own; publishing replaces the link by an atomic rename, so a
reader sees the old rows or the new ones. The link is the only record: whatever it does not point to
was left by a run that died or was replaced, and the next run removes it. Spark, pyarrow and pandas
ignore names that begin with an underscore.

A reader that lists the files and then opens them by name follows the link twice. If the partition
is replaced in between and another run has started, its files are gone and it has to read again. A
reader that resolves the link first (`os.path.realpath`) reads one run as a whole, because the
replaced run is kept until the next one begins.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from jobs.command.folders import Folder
from jobs.command.locks import take_lock
from jobs.command.session import local_uri, parquet_reader
from jobs.stages.publish.base import Output, Partition
from schemas.errors import DataContractError, SettingsError

__all__ = ["FolderOutput", "FolderPartition"]


class FolderPartition(Partition):
    """A partition that this run holds.

    Attributes:
        link: What readers open.
        staged: Folder for this run's rows. No other run may use the same file names: a reader may
            list the files of one run and open them after the next was published.
    """

    def __init__(self, link: Path, staged: Path) -> None:
        self.link = link
        self.staged = staged

    def stage(self, rows: DataFrame, scratch: Folder) -> DataFrame:  # noqa: ARG002
        """Write the rows beside the published ones; returns them as they were written."""
        rows.write.mode("overwrite").parquet(local_uri(self.staged))
        return parquet_reader(rows.sparkSession).parquet(local_uri(self.staged))

    def publish(self, properties: Mapping[str, str]) -> str:  # noqa: ARG002
        """Replace the published rows by the staged ones; the rows themselves name their run."""
        fresh = self.staged.with_name(f"{self.staged.name}.link")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(self.staged, self.link.parent))
        # Rows first, then the link to them: a power cut between the two leaves the old link.
        os.sync()
        fresh.replace(self.link)
        return str(self.link)

    def is_published(self, run: Path) -> bool:
        """Whether readers see the rows in this folder."""
        return run.resolve() == self.link.resolve()


class FolderOutput(Output):
    """A folder on a local or mounted file system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def hold(self, ds: str, run_id: str) -> Iterator[FolderPartition]:
        """Lock the partition until the block ends, and remove what earlier runs left.

        Raises:
            PartitionBusy: Another run holds it.
            SettingsError: The path is taken by something else, or cannot be written.
        """
        link = self._link(ds)
        runs = self.path / "_runs" / link.name
        locks = self.path / "_locks"
        try:
            runs.mkdir(parents=True, exist_ok=True)
            locks.mkdir(exist_ok=True)
            lock = take_lock(locks / f"{link.name}.lock", link.name, f"run {run_id}")
        except OSError as error:
            raise SettingsError(f"--output {self.path}: {error.strerror}") from error
        with lock:
            if link.exists() and not link.is_symlink():
                raise SettingsError(f"{link}: was not published by this job; move it away first")
            partition = FolderPartition(link, runs / run_id)
            for path in runs.iterdir():
                if not partition.is_published(path):
                    _remove(path)
            try:
                yield partition
            finally:
                if not partition.is_published(partition.staged):
                    _remove(partition.staged)

    def read(self, spark: SparkSession, ds: str) -> DataFrame:
        """Read one published run as a whole, even if another is published meanwhile."""
        link = self._link(ds)
        run = Path(os.path.realpath(link))
        if not run.is_dir():
            raise DataContractError(f"{link}: nothing is published there")
        try:
            return parquet_reader(spark).option("mergeSchema", True).parquet(local_uri(run))
        except (AnalysisException, Py4JJavaError) as error:
            raise DataContractError(f"{link}: a file is damaged, or none is Parquet") from error

    def day_before(self, spark: SparkSession, ds: str) -> str | None:  # noqa: ARG002
        """The last day before this one that is published, or None."""
        days = [path.name.removeprefix("ds=") for path in self.path.glob("ds=*") if path.exists()]
        return max((day for day in days if _is_date(day) and day < ds), default=None)

    def describe(self, ds: str) -> str:
        """The partition's link."""
        return str(self._link(ds))

    def _link(self, ds: str) -> Path:
        return self.path / f"ds={ds}"


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
