"""Publish a partition atomically, one run at a time.

    OUTPUT/ds=DATE                   link to the published run: what readers see
    OUTPUT/_runs/ds=DATE/RUN_ID      rows that a run wrote
    OUTPUT/_runs/ds=DATE/RUN_ID.work its scratch folder
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.command.locks import take_lock
from schemas.errors import SettingsError

__all__ = ["Partition", "hold_partition", "output_folder"]


@dataclass(frozen=True)
class Partition:
    """A partition that this run holds.

    Attributes:
        link: What readers open.
        staged: Folder for this run's rows. No other run may use the same file names: a reader may
            list the files of one run and open them after the next was published.
        work: This run's scratch folder.
    """

    link: Path
    staged: Path
    work: Path

    def publish(self) -> None:
        """Replace the published rows by the staged ones."""
        fresh = self.staged.with_name(f"{self.staged.name}.link")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(self.staged, self.link.parent))
        # Rows first, then the link to them: a power cut between the two leaves the old link.
        os.sync()
        fresh.replace(self.link)

    def is_published(self, run: Path) -> bool:
        """Whether readers see the rows in this folder."""
        return run.resolve() == self.link.resolve()


def output_folder(output: str) -> Path:
    """The folder that `--output` names.

    Raises:
        SettingsError: It is a URI; object stores have neither links nor atomic renames.
    """
    if "://" in output:
        raise SettingsError(f"--output {output}: must be a local or mounted folder")
    return Path(output)


@contextmanager
def hold_partition(output: Path, ds: str, run_id: str) -> Iterator[Partition]:
    """Lock the partition until the block ends, and remove what earlier runs left.

    Raises:
        PartitionBusy: Another run holds it.
        SettingsError: The path is taken by something else, or cannot be written.
    """
    link = output / f"ds={ds}"
    runs = output / "_runs" / link.name
    locks = output / "_locks"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        locks.mkdir(exist_ok=True)
        lock = take_lock(locks / f"{link.name}.lock", link.name, f"run {run_id}")
    except OSError as error:
        raise SettingsError(f"--output {output}: {error.strerror}") from error
    with lock:
        if link.exists() and not link.is_symlink():
            raise SettingsError(f"{link}: was not published by this job; move it away first")
        partition = Partition(link, runs / run_id, runs / f"{run_id}.work")
        for path in runs.iterdir():
            if not partition.is_published(path):
                _remove(path)
        try:
            yield partition
        finally:
            _remove(partition.work)
            if not partition.is_published(partition.staged):
                _remove(partition.staged)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
