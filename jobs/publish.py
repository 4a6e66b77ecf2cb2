"""Publishing a partition at one stroke, one run at a time.

    OUTPUT/ds=DATE                   a link to the published run: what readers see
    OUTPUT/_runs/ds=DATE/RUN_ID      what a run wrote
    OUTPUT/_runs/ds=DATE/RUN_ID.work what it needed on the way
    OUTPUT/_locks/ds=DATE.lock       held by the run at work

A run writes its own folder; publishing replaces the link, which the file system does atomically, so
that a reader sees the old rows or the new ones. Whatever no link points to is left over from a run
that ended early, and the next run removes it: there is no journal, since the link is the record.
Spark, pyarrow and pandas pass over names that begin with an underscore.
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
        staged: Where this run writes its rows.
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
        self.clean()

    def clean(self) -> None:
        """Remove what no link points to."""
        published = self.link.resolve() if self.link.exists() else None
        for path in self.staged.parent.iterdir():
            if path.is_symlink():
                path.unlink()
            elif path.resolve() != published:
                shutil.rmtree(path)


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
        partition.clean()
        try:
            yield partition
        finally:
            partition.clean()


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = path.read_text(encoding="utf-8").strip() or "another run"
        raise PartitionBusy(
            f"{path.stem} is held by {holder}; wait for it to end and run again"
        ) from None
