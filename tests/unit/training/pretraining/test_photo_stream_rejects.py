"""A stream replaces photos that cannot be used, counts why, and ends where there are no others."""

import io
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from schemas.errors import DataContractError
from schemas.rejects import RejectReason
from seer_model.photos.limits import PhotoAccess, PhotoLimits
from tests.support.photo_manifests import (
    decoding_threads,
    epoch_of,
    numbers,
    open_stream,
    photo,
    row,
    write,
    write_photos,
)


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


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("/absent", r"^/absent/\d\.jpg: not_found, .*4 photos.*; check that"),
        ("nostore://bucket", r"^nostore://bucket/\d\.jpg: unsupported_scheme, .*; Install it$"),
    ],
)
def test_a_batch_without_any_usable_photo_is_one_line(
    tmp_path: Path, folder: str, message: str
) -> None:
    fsspec.register_implementation("nostore", "no_such_package.Store", errtxt="Install it")
    rows = [row(n, uri=f"{folder}/{n}.jpg") for n in range(8)]
    limits = PhotoLimits(access=PhotoAccess(schemes=("nostore",)))
    stream = open_stream(write(rows, tmp_path / "part-0.parquet").parent, limits=limits)
    with pytest.raises(DataContractError, match=message) as e:
        next(stream.batches(0))
    assert "\n" not in str(e.value)
    assert not decoding_threads()
