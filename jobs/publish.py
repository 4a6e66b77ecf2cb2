"""Publishing a partition at one stroke, one run at a time.

    OUTPUT/ds=DATE                   a link to the published run: what readers see
    OUTPUT/_runs/ds=DATE/RUN_ID      what a run wrote
    OUTPUT/_runs/ds=DATE/RUN_ID.work what it needed on the way
    OUTPUT/_locks/ds=DATE.lock       held by the run at work

A run writes its own folder; publishing replaces the link, which the file system does atomically, so
that a reader sees the old rows or the new ones. Whatever no link points to is left over from a run
that ended early or was replaced, and the next run removes it: there is no journal, since the link
is the record. Spark, pyarrow and pandas pass over names that begin with an underscore.

A reader that lists the files and opens them by name goes through the link twice; if the swap falls
between, its files are gone and it has to read again. One that resolves the link first
(`os.path.realpath`) reads one run, whole: the replaced run stays until the next run begins.
"""

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import PartitionBusy, SettingsError

__all__ = ["Partition", "hold_partition"]


@dataclass(frozen=True)
class Partition:
    """A partition that this run holds.

    Attributes:
        link: What readers open.
        staged: Where this run writes its rows, in files whose names no other run uses: a reader may
            list the files of one run and open them once the next is published.
        work: Where this run may write what it needs on the way.
    """

    link: Path
    staged: Path
    work: Path

    def publish(self) -> None:
        """Make the staged rows the published ones."""
        fresh = self.staged.with_name(f"{self.staged.name}.link")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(self.staged, self.link.parent))
        # Rows first, then the link to them: a power cut between the two leaves the old link.
        os.sync()
        fresh.replace(self.link)

    def is_published(self, run: Path) -> bool:
        """Whether readers see the rows in this folder."""
        return run.resolve() == self.link.resolve()


@contextmanager
def hold_partition(output: Path, ds: str, run_id: str) -> Iterator[Partition]:
    """Hold the partition until the block ends, and clear away what earlier runs left.

    The lock is the kernel's: it ends with the process that holds it, however that ends.

    Raises:
        PartitionBusy: Another run holds it.
        SettingsError: Something else lies where the partition goes, or it cannot be written.
    """
    link = output / f"ds={ds}"
    runs = output / "_runs" / link.name
    lock = output / "_locks" / f"{link.name}.lock"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(exist_ok=True)
        file = lock.open("a+", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"--output {output}: {error.strerror}") from error
    with file:
        _lock(file.fileno(), lock)
        if link.exists() and not link.is_symlink():
            raise SettingsError(f"{link}: was not published by this job; move it away first")
        file.truncate(0)
        file.write(f"run {run_id}, process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
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


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = path.read_text(encoding="utf-8").strip() or "another run"
        raise PartitionBusy(
            f"{path.stem} is held by {holder}; wait for it to end and run again"
        ) from None
