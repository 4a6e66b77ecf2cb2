import gc
import io
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from jobs.samples.products import KINDS
from jobs.samples.scenes import draw_scene
from schemas.errors import DataContractError, SettingsError
from schemas.manifest import MANIFEST
from schemas.rejects import RejectReason
from seer_model.photo_source import PhotoSource
from seer_model.photos import PhotoLimits
from seer_model.preprocessing import Preprocessing, prepare_photo
from seer_model.pretraining.photo_references import PhotoReferences
from seer_model.pretraining.photo_stream import PhotoStream

SIZE = 4
BAD = -1

torch.set_num_threads(1)


# Photos of one colour each, which is their number; and manifests of them.


def photo(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 6), (number % 256, number // 256, 77)).save(buffer, "PNG")
    return buffer.getvalue()


def numbers(batch: torch.Tensor) -> list[int]:
    """Which photos a batch is of."""
    assert (batch.dtype, batch.shape[1:]) == (torch.uint8, (SIZE, SIZE, 3))
    assert (batch == batch[:, :1, :1]).all()
    assert (batch[..., 2] == 77).all()
    return [int(pixel[0]) + 256 * int(pixel[1]) for pixel in batch[:, 0, 0]]


def row(number: int, data: bytes | None = None, uri: str | None = None, **more: Any) -> Any:
    return {
        "listing_id": f"listing {number}",
        "image_index": 0,
        "image_uri": uri,
        "image_bytes": data,
        **more,
    }


def write(
    rows: Sequence[Any], file: Path, row_group: int = 7, schema: pa.Schema = MANIFEST
) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema), file, row_group_size=row_group)
    return file


def write_photos(
    folder: Path, count: int, *, bad: Sequence[int] = (), files: int = 3, row_group: int = 7
) -> Path:
    """A manifest of encoded photos, of which some are none."""
    rows = [row(n, b"no photo" if n in bad else photo(n)) for n in range(count)]
    share = -(-count // files)
    for part in range(files):
        some = rows[part * share : (part + 1) * share]
        write(some, folder / f"ds=2026-01-0{part + 1}" / "part-0.parquet", row_group)
    return folder


def open_stream(manifest: Path, **changes: Any) -> PhotoStream:
    options: dict[str, Any] = {
        "photo_size": SIZE,
        "batch_size": 4,
        "seed": 3,
        "decode_threads": 2,
        "shuffle_buffer": 16,
    }
    return PhotoStream(manifest, **options | changes)


def epoch_of(stream: PhotoStream, epoch: int = 0, start_step: int = 0) -> list[list[int]]:
    return [numbers(batch) for batch in stream.batches(epoch, start_step)]


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


# Photos that cannot be used.


def test_a_bad_photo_is_replaced_by_one_of_its_global_batch(tmp_path: Path) -> None:
    bad = (3, 9, 10, 22, 41)
    good = epoch_of(open_stream(write_photos(tmp_path / "good", 48), batch_size=8))
    stream = open_stream(write_photos(tmp_path / "bad", 48, bad=bad), batch_size=8)
    replaced = 0
    for with_bad, without in zip(epoch_of(stream), good, strict=True):
        for slot, (shown, own) in enumerate(zip(with_bad, without, strict=True)):
            if own in bad:
                replaced += 1
                assert shown in set(without) - set(bad), slot
            else:
                assert shown == own
    assert replaced == 5
    assert stream.rejects == {RejectReason.NOT_AN_IMAGE: 5}


def test_replacements_are_spread(tmp_path: Path) -> None:
    stream = open_stream(write_photos(tmp_path, 40, bad=range(20)), batch_size=40)
    (batch,) = epoch_of(stream)
    assert sorted(set(batch)) == list(range(20, 40))
    assert max(Counter(batch).values()) < 8


def test_every_reason_is_counted_and_photos_beyond_the_limits_are_left_out(tmp_path: Path) -> None:
    large = io.BytesIO()
    Image.new("RGB", (30, 30)).save(large, "PNG")
    rows = [
        row(0, photo(0)),
        row(1),
        row(2, photo(2), "both"),
        row(3, uri=str(tmp_path / "absent")),
        row(4, uri="nothing://such"),
        row(5, b""),
        row(6, b"no photo"),
        row(7, photo(7)[:-30]),
        row(8, large.getvalue()),
    ]
    manifest = write(rows, tmp_path / "manifest" / "part-0.parquet").parent
    stream = open_stream(manifest, batch_size=9, limits=PhotoLimits(max_pixels=100))
    for done in (1, 2):
        assert epoch_of(stream, done) == [[0] * 9]
        reasons = {
            RejectReason.NO_PHOTO,
            RejectReason.AMBIGUOUS_SOURCE,
            RejectReason.NOT_FOUND,
            RejectReason.UNSUPPORTED_SCHEME,
            RejectReason.EMPTY_FILE,
            RejectReason.NOT_AN_IMAGE,
            RejectReason.TRUNCATED,
            RejectReason.TOO_LARGE,
        }
        assert stream.rejects == dict.fromkeys(reasons, done)


def test_rejects_are_of_what_was_seen(tmp_path: Path) -> None:
    stream = open_stream(write_photos(tmp_path, 48, bad=range(0, 48, 3)))
    repeats = 0
    for batch in stream.batches(0):
        repeats += len(batch) - len(set(numbers(batch)))
        assert stream.rejects[RejectReason.NOT_AN_IMAGE] == repeats
    assert repeats == 16


def test_a_batch_without_any_usable_photo_is_one_line(tmp_path: Path) -> None:
    rows = [row(n, uri=f"/absent/{n}.jpg") for n in range(8)]
    stream = open_stream(write(rows, tmp_path / "part-0.parquet").parent)
    with pytest.raises(DataContractError, match=r"^/absent/\d\.jpg: not_found, .*4 photos") as e:
        next(stream.batches(0))
    assert "\n" not in str(e.value)
    assert not decoding_threads()


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


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The photos that are decoded from now on."""
    decoded: list[bytes] = []

    def prepare(data: bytes, *rest: Any) -> Any:
        decoded.append(data)
        return prepare_photo(data, *rest)

    monkeypatch.setattr("seer_model.photo_source.prepare_photo", prepare)
    return decoded


# Memory and threads.


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


def decoding_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("stream-decode", "references", "footers"))]


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


# Manifests.


def test_photos_by_address_are_decoded_like_everywhere_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for seed, kind in enumerate(KINDS[:4]):
        draw_scene(kind, seed, rng).save(tmp_path / f"{seed} é.jpg")
    files = sorted(tmp_path.glob("*.jpg"))
    rows = [row(n, uri=uri) for n, uri in enumerate([str(files[0]), *(f.as_uri() for f in files)])]
    manifest = write(rows[1:], tmp_path / "manifest" / "part-0.parquet").parent
    (batch,) = open_stream(manifest, photo_size=64).batches(0)
    assert batch.shape == (4, 64, 64, 3)
    expected = {
        prepare_photo(file.read_bytes(), Preprocessing(image_size=64), PhotoLimits()).tobytes()
        for file in files
    }
    assert {pixels.numpy().tobytes() for pixels in batch} == expected


@pytest.mark.parametrize("partitioned", [True, False])
def test_partitions_and_names_to_ignore(partitioned: bool, tmp_path: Path) -> None:
    for part in range(3):
        folder = tmp_path / f"ds=2026-01-0{part}" if partitioned else tmp_path
        write([row(part, photo(part))], folder / f"part-{part}.parquet")
    write([row(9, photo(9))], tmp_path / "_staging" / "part-0.parquet")
    write([row(9, photo(9))], tmp_path / "_part-0.parquet")
    write([row(9, photo(9))], tmp_path / ".part-0.parquet")
    (tmp_path / "_SUCCESS").touch()
    (seen,) = epoch_of(open_stream(tmp_path, batch_size=3))
    assert sorted(seen) == [0, 1, 2]


def test_only_the_splits_asked_for(tmp_path: Path) -> None:
    splits = ["train", "val", None, "extra"]
    rows = [row(n, photo(n), split=splits[n % 4]) for n in range(40)]
    write(rows[:25], tmp_path / "a.parquet", row_group=6)
    write(rows[25:], tmp_path / "b.parquet", row_group=6)

    def seen(wanted: list[str] | None) -> list[int]:
        stream = open_stream(tmp_path, splits=wanted, batch_size=2)
        return sorted(itertools.chain(*epoch_of(stream)))

    assert seen(["train"]) == [n for n in range(40) if n % 4 == 0]
    assert seen(["extra", "train"]) == [n for n in range(40) if n % 4 in (0, 3)]
    assert seen(None) == list(range(40))
    with pytest.raises(DataContractError, match=r": no photo in the splits none, such$"):
        seen(["such", "none"])


@pytest.mark.parametrize(
    "column",
    [
        lambda texts: pa.array(texts, pa.large_string()),
        lambda texts: pa.array(texts).dictionary_encode(),
        lambda texts: pa.array(texts, pa.string_view()),
    ],
    ids=["large", "dictionary", "view"],
)
def test_other_layouts_of_strings(column: Callable[[list[str]], Any], tmp_path: Path) -> None:
    for n in range(8):
        (tmp_path / f"{n}.png").write_bytes(photo(n))
    table = pa.table(
        {
            "listing_id": column([str(n) for n in range(8)]),
            "image_index": pa.array([0] * 8, pa.int64()),
            "image_uri": column([str(tmp_path / f"{n}.png") for n in range(8)]),
            "split": column(["train", "val"] * 4),
            "more": pa.nulls(8),
        }
    )
    (tmp_path / "manifest").mkdir()
    pq.write_table(table, tmp_path / "manifest" / "part-0.parquet")
    stream = open_stream(tmp_path / "manifest", splits=["val"])
    assert sorted(epoch_of(stream)[0]) == [1, 3, 5, 7]


def test_no_photos_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match="absent: no such file or folder"):
        open_stream(tmp_path / "absent")
    with pytest.raises(DataContractError, match=r": no photo$"):
        open_stream(tmp_path)
    write([], tmp_path / "part-0.parquet")
    with pytest.raises(DataContractError, match=r": no photo$"):
        open_stream(tmp_path)


def test_fewer_photos_than_a_batch(tmp_path: Path) -> None:
    manifest = write_photos(tmp_path, 7)
    with pytest.raises(
        SettingsError, match=r"7 photos do not fill one batch of 8 \(4 in each of 2 processes\)"
    ):
        open_stream(manifest, world_size=2)


def test_columns_that_break_the_contract(tmp_path: Path) -> None:
    write_photos(tmp_path, 20)
    file = tmp_path / "ds=2026-01-02" / "part-0.parquet"
    names = ["listing_id", "image_index", "image_bytes"]
    write([row(0, photo(0))], file, schema=pa.schema([MANIFEST.field(name) for name in names]))
    assert open_stream(tmp_path).steps_per_epoch == 3
    with pytest.raises(DataContractError, match=r"ds=2026-01-02/part-0\.parquet: column split"):
        open_stream(tmp_path, splits=["train"])
    write([row(0)], file, schema=pa.schema([MANIFEST.field(name) for name in names[:2]]))
    with pytest.raises(
        DataContractError, match=r"ds=2026-01-02/part-0\.parquet: columns image_uri"
    ):
        open_stream(tmp_path)


def damage_footer(data: bytes) -> bytes:
    return data[:-20]


def damage_pages(data: bytes) -> bytes:
    start = data.index(b"\x89PNG")
    return data[: start - 200] + bytes(400) + data[start + 200 :]


@pytest.mark.parametrize(
    "damage",
    [
        damage_footer,
        damage_pages,
        lambda _: b"",
        lambda _: b"PAR1 text PAR1",
        lambda data: data[4:],
    ],
    ids=["footer", "pages", "empty", "text", "head"],
)
def test_a_damaged_file_is_one_line_that_names_it(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    rows = [row(n, photo(n) + bytes(500)) for n in range(20)]
    for name in ("a", "b"):
        pq.write_table(
            pa.Table.from_pylist(rows, MANIFEST),
            tmp_path / f"{name}.parquet",
            compression="none",
            use_dictionary=False,
            write_page_checksum=True,
        )
    file = tmp_path / "b.parquet"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataContractError, match=r"b\.parquet: not readable as Parquet") as caught:
        list(open_stream(tmp_path).batches(0))
    assert "\n" not in str(caught.value)
    assert not decoding_threads()


def test_a_file_that_changes_during_training(tmp_path: Path) -> None:
    manifest = write_photos(tmp_path, 48)
    stream = open_stream(manifest)
    file = manifest / "ds=2026-01-02" / "part-0.parquet"
    write([row(0, photo(0))] * 9, file)
    with pytest.raises(
        DataContractError, match=r"part-0\.parquet: was changed while it was in use"
    ):
        list(stream.batches(0))
    file.unlink()
    with pytest.raises(DataContractError, match=r"part-0\.parquet: no such file or folder"):
        list(stream.batches(0))


def test_the_fingerprint_tells_whether_an_epoch_can_be_resumed(tmp_path: Path) -> None:
    def fingerprints(folder: str, **more: Any) -> str:
        return open_stream(write_photos(tmp_path / folder, **more)).fingerprint

    first = fingerprints("a", count=40)
    assert fingerprints("b", count=40) == first
    different = [fingerprints("c", count=41), fingerprints("d", count=40, row_group=8)]
    different.append(fingerprints("e", count=40, files=1))
    assert len({first, *different}) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 0},
        {"photo_size": 0},
        {"decode_threads": 0},
        {"shuffle_buffer": 0},
        {"seed": -1},
        {"rank": 1},
        {"rank": -1},
    ],
    ids=str,
)
def test_numbers_out_of_range(change: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be"):
        open_stream(tmp_path, **change)


@pytest.mark.parametrize(("epoch", "step"), [(-1, 0), (0, -1), (0, 13)])
def test_there_is_no_such_epoch_or_step(epoch: int, step: int, tmp_path: Path) -> None:
    stream = open_stream(write_photos(tmp_path, 48))
    with pytest.raises(ValueError, match="step at most 12"):
        stream.batches(epoch, step)
    assert list(stream.batches(0, 12)) == []
