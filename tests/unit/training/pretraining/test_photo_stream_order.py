"""A stream shows every photo once an epoch, in any number of processes, and resumed at any step."""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seer_model.training.pretraining.photo_references import PhotoReferences
from tests.support.photo_manifests import count_calls, epoch_of, open_stream, write_photos


def global_batches(manifest: Path, world_size: int, global_size: int, **more: Any) -> Any:
    """What all processes see together, step by step, and what they reject together."""
    streams = [
        open_stream(
            manifest,
            batch_size=global_size // world_size,
            world_size=world_size,
            rank=rank,
            **more,
        )
        for rank in range(world_size)
    ]
    slices = zip(*(epoch_of(stream) for stream in streams), strict=True)
    steps = [list(itertools.chain(*step)) for step in slices]
    return steps, sum((stream.rejects for stream in streams), Counter())


# Every photo once an epoch, in another order each.


def test_an_epoch_is_every_photo_once_in_random_order(tmp_path: Path) -> None:
    stream = open_stream(write_photos(tmp_path, 48))
    assert stream.steps_per_epoch == 12
    seen = list(itertools.chain(*epoch_of(stream)))
    assert sorted(seen) == list(range(48))
    assert seen != sorted(seen)
    assert not stream.rejects


def test_an_incomplete_last_batch_is_left_out(tmp_path: Path) -> None:
    stream = open_stream(write_photos(tmp_path, 47))
    assert stream.steps_per_epoch == 11
    seen = list(itertools.chain(*epoch_of(stream)))
    assert len(seen) == len(set(seen)) == 44


def test_the_order_depends_on_seed_and_epoch_alone(tmp_path: Path) -> None:
    manifest = write_photos(tmp_path, 48)
    orders = {
        (seed, epoch): epoch_of(open_stream(manifest, seed=seed), epoch)
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    }
    assert len({str(order) for order in orders.values()}) == 6
    again = open_stream(manifest, seed=1, decode_threads=3)
    assert [epoch_of(again, epoch) for epoch in (2, 0)] == [orders[1, 2], orders[1, 0]]


def test_the_buffer_mixes_row_groups(tmp_path: Path) -> None:
    """Photos of one listing lie side by side in a manifest; they should not in a batch."""
    manifest = write_photos(tmp_path, 240, files=1, row_group=10)
    seen = list(itertools.chain(*epoch_of(open_stream(manifest, shuffle_buffer=120))))
    neighbours = sum(abs(a - b) == 1 for a, b in itertools.pairwise(seen))
    assert neighbours < 24
    unmixed = list(itertools.chain(*epoch_of(open_stream(manifest, shuffle_buffer=1))))
    assert sum(abs(a - b) == 1 for a, b in itertools.pairwise(unmixed)) > 200


def test_every_place_in_the_order_is_equally_likely(tmp_path: Path) -> None:
    """The first half of an epoch holds half of each row group, over many epochs."""
    references = PhotoReferences(str(write_photos(tmp_path, 24, row_group=4)), None)
    halves: Counter[str] = Counter()
    for epoch in range(300):
        order = references.shuffled(np.random.default_rng(epoch), 10)
        halves.update(str(source.data) for source in itertools.islice(order, 12))
    assert len(halves) == 24
    assert all(100 < count < 200 for count in halves.values())


# One process or many.


@pytest.mark.parametrize("bad", [(), (0, 5, 6, 17, 30, 31, 32, 33, 59)], ids=["good", "bad"])
def test_the_same_global_batches_for_any_world_size(bad: Sequence[int], tmp_path: Path) -> None:
    manifest = write_photos(tmp_path, 60, bad=bad)
    expected, rejects = global_batches(manifest, 1, 8)
    assert len(expected) == 7
    for world_size in (2, 4, 8):
        assert global_batches(manifest, world_size, 8) == (expected, rejects)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_sharding_and_resuming_of_any_size(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    draw = data.draw
    count = draw(st.integers(1, 40), "photos")
    world_size = draw(st.integers(1, 4), "world size")
    global_size = world_size * draw(st.integers(1, max(1, count // world_size)), "batch size")
    assume(global_size <= count)
    bad = draw(st.sets(st.integers(0, count - 1), max_size=global_size - 1), "bad")
    manifest = write_photos(
        tmp_path_factory.mktemp("manifest"),
        count,
        bad=sorted(bad),
        files=draw(st.integers(1, 3), "files"),
        row_group=draw(st.integers(1, 50), "row group"),
    )
    buffer = draw(st.integers(1, 50), "shuffle buffer")
    expected, rejects = global_batches(manifest, 1, global_size, shuffle_buffer=buffer)
    assert global_batches(manifest, world_size, global_size, shuffle_buffer=buffer) == (
        expected,
        rejects,
    )
    assert len(expected) == count // global_size
    seen = Counter(itertools.chain(*expected))
    # Nothing bad, nothing missing but for the last batch, nothing twice but for replacements.
    assert not seen.keys() & bad
    assert sum(seen.values()) - len(seen) == rejects.total() <= len(bad)
    step = draw(st.integers(0, len(expected)), "step")
    stream = open_stream(manifest, batch_size=global_size, shuffle_buffer=buffer)
    assert epoch_of(stream, 0, step) == expected[step:]


# Resuming.


@pytest.mark.parametrize("shuffle_buffer", [1, 5, 16, 100])
def test_resuming_at_any_step_sees_what_an_uninterrupted_run_sees(
    shuffle_buffer: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_photos(tmp_path, 50, bad=(4, 20))
    expected = epoch_of(open_stream(manifest, shuffle_buffer=shuffle_buffer), 1)
    decoded = count_calls(monkeypatch)
    for step in range(13):
        decoded.clear()
        stream = open_stream(manifest, shuffle_buffer=shuffle_buffer)
        assert epoch_of(stream, 1, step) == expected[step:]
        assert len(decoded) <= (12 - step) * 4 + 4


def test_what_is_skipped_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    references = PhotoReferences(str(write_photos(tmp_path, 240, files=3, row_group=5)), None)
    opened: list[str] = []
    real = references._open
    monkeypatch.setattr(references, "_open", lambda file: opened.append(file) or real(file))
    rest = list(references.shuffled(np.random.default_rng(0), 10, skip=220))
    assert len(rest) == 20
    assert len(opened) <= 12  # Of 48 row groups: the last four, and those of ten rows held.
    assert rest == list(references.shuffled(np.random.default_rng(0), 10))[220:]


def test_the_fingerprint_tells_whether_an_epoch_can_be_resumed(tmp_path: Path) -> None:
    def fingerprints(folder: str, **more: Any) -> str:
        return open_stream(write_photos(tmp_path / folder, **more)).fingerprint

    first = fingerprints("a", count=40)
    assert fingerprints("b", count=40) == first
    different = [fingerprints("c", count=41), fingerprints("d", count=40, row_group=8)]
    different.append(fingerprints("e", count=40, files=1))
    assert len({first, *different}) == 4


@pytest.mark.parametrize(("epoch", "step"), [(-1, 0), (0, -1), (0, 13)])
def test_there_is_no_such_epoch_or_step(epoch: int, step: int, tmp_path: Path) -> None:
    stream = open_stream(write_photos(tmp_path, 48))
    with pytest.raises(ValueError, match="step at most 12"):
        stream.batches(epoch, step)
    assert list(stream.batches(0, 12)) == []
