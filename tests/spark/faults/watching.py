"""A reader of a published partition who never stops reading."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import pyarrow.parquet as pq


class Watch:
    """Reads a partition over and over until the block ends; what it saw is judged then.

    Args:
        partition: The link that readers open.
        listings: What must be there, each once, at every moment.
    """

    def __init__(self, partition: Path, listings: Sequence[str]) -> None:
        self._partition = partition
        self._listings = sorted(listings)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._wrong: list[str] = []
        self.reads = 0
        self.runs: list[str] = []
        """The runs whose rows were seen, in order."""

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if error is None:
            assert self._wrong == []
            assert self.reads > 2

    def _read(self) -> None:
        while True:
            # Once more after the end, so that what came last is seen.
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
