"""A reader that polls a published partition throughout a test."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq


class Watch:
    """Reads a partition again and again, see `over`.

    Args:
        partition: The link that readers open.
        listings: The listings that every read must find, each once.
    """

    def __init__(self, partition: Path, listings: Sequence[str]) -> None:
        self._partition = partition
        self._listings = sorted(listings)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._wrong: list[str] = []
        self.reads = 0
        self.runs: list[str] = []
        """The runs whose rows were read, in order."""

    @classmethod
    @contextmanager
    def over(cls, partition: Path, listings: Sequence[str]) -> Iterator["Watch"]:
        """Read until the block ends, and then check every read."""
        watch = cls(partition, listings)
        watch._thread.start()
        try:
            yield watch
        finally:
            watch._over.set()
            watch._thread.join()
        assert watch._wrong == []
        assert watch.reads > 2

    def _read(self) -> None:
        while True:
            # Once more after the end, to see the last run.
            last = self._over.wait(0.05)
            try:
                table = pq.read_table(os.path.realpath(self._partition))
            except (OSError, ValueError) as error:
                self._wrong.append(repr(error))
            else:
                self._judge(table["listing_id"].to_pylist(), set(table["run_id"].to_pylist()))
            self.reads += 1
            if last:
                return

    def _judge(self, listings: list[str], runs: set[str]) -> None:
        if sorted(listings) != self._listings or len(runs) != 1:
            self._wrong.append(f"{len(listings)} rows of runs {runs}")
        elif (run := runs.pop()) not in self.runs[-1:]:
            self.runs.append(run)
