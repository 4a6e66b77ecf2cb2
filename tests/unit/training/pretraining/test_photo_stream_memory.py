"""A stream holds few photos in memory, leaves no thread behind, and shares no batch."""

import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.manifest import MANIFEST
from seer_model.photos.source import PhotoSource
from seer_model.training.pretraining.photo_references import PhotoReferences
from tests.support.photo_manifests import (
    count_calls,
    decoding_threads,
    epoch_of,
    numbers,
    open_stream,
    row,
    write_photos,
)


@pytest.fixture
def references_alive() -> Iterator[Callable[[], int]]:
    """Counts the references made since."""
    gc.collect()
    gc.freeze()  # What there was before is not looked at.
    yield lambda: sum(type(thing) is PhotoSource for thing in gc.get_objects())
    gc.unfreeze()


def test_references_and_batches_in_memory_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, references_alive: Callable[[], int]
) -> None:
    manifest = write_photos(tmp_path, 600, files=3, row_group=200)
    decoded = count_calls(monkeypatch)
    stream = open_stream(manifest, shuffle_buffer=16)
    most = 0
    for taken, _ in enumerate(stream.batches(0), start=1):
        # Wait until all that may be done ahead is done.
        allowed = min(taken + 2, 150) * 4
        deadline = time.monotonic() + 10
        while len(decoded) < allowed and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(decoded) == allowed
        most = max(most, references_alive())
    # The buffer, the global batch that is coming, slices and spares of three that are decoded, and
    # two rows on their way.
    assert 16 <= most <= 16 + 4 + 3 * (4 + 4) + 2


def test_row_groups_are_not_read_whole(tmp_path: Path) -> None:
    """64 MB of photos in one row group, of which a stream holds a few."""
    data = np.random.default_rng(0).bytes(40_000)
    table = pa.Table.from_pylist([row(n, data) for n in range(1600)], MANIFEST)
    # By default pyarrow's writer makes pages, and dictionaries, of at least 1024 rows.
    pq.write_table(table, tmp_path / "part-0.parquet", use_dictionary=False, write_batch_size=16)
    del table
    references = PhotoReferences(str(tmp_path), None)
    before = pa.total_allocated_bytes()
    most = 0
    for _ in references.shuffled(np.random.default_rng(0), 8):
        most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < 16_000_000


@pytest.mark.parametrize("taken", [0, 1, 5, 12])
def test_closing_early_leaves_no_thread(taken: int, tmp_path: Path) -> None:
    stream = open_stream(write_photos(tmp_path, 48))
    batches = stream.batches(0)
    for _ in range(taken):
        next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not decoding_threads()
    for _ in stream.batches(1):
        break
    gc.collect()
    assert not decoding_threads()


def test_two_epochs_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    stream = open_stream(write_photos(tmp_path, 48))
    expected = [epoch_of(stream, 0), epoch_of(stream, 1)]
    pairs = zip(stream.batches(0), stream.batches(1), strict=True)
    seen = [(numbers(first), numbers(second)) for first, second in pairs]
    assert [list(batches) for batches in zip(*seen, strict=True)] == expected


def test_a_batch_belongs_to_the_caller(tmp_path: Path) -> None:
    stream = open_stream(write_photos(tmp_path, 48))
    for expected, batch in zip(epoch_of(stream), list(stream.batches(0)), strict=True):
        assert numbers(batch) == expected
        batch.zero_()
