"""A list of known photos: edits are found, other photos are not, and how it is refused."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from demo.samples.products import KINDS
from demo.samples.scenes import draw_scene
from schemas.errors import SettingsError
from schemas.known_photos import KNOWN_PHOTOS
from schemas.screening import Action
from seer_model.photos.perceptual_hash import HASH_BYTES, PhotoHashes, hash_photo, perceptual_hash
from seer_model.screener import known_photos
from seer_model.screener.known_photos import (
    CERTAIN_BITS,
    LIKELY_BITS,
    KnownPhotos,
    mirrored_hash,
    read_known_photos,
    variant_hashes,
)
from tests.support.edited_photos import edits


def scene(number: int) -> Image.Image:
    return draw_scene(KINDS[number % 6], number, np.random.default_rng(number))


def rows(number: int, rule: str = "stolen", action: str = "block") -> Iterator[dict[str, object]]:
    for variant, hashed in variant_hashes(np.asarray(scene(number))):
        columns = (f"photo {number}", rule, action, variant, hashed)
        yield dict(zip(KNOWN_PHOTOS.names, columns, strict=True))


def as_list(*photos: Iterator[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist([row for each in photos for row in each], schema=KNOWN_PHOTOS)


@pytest.fixture(scope="module")
def known() -> KnownPhotos:
    return KnownPhotos(as_list(*(rows(number) for number in range(6))))


def test_every_edit_is_found_and_no_other_photo(known: KnownPhotos) -> None:
    names, hashes = [], []
    for name, data in edits(scene(2)):
        names.append(name)
        hashes.append(hash_photo(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))))
    for name, matches in zip(names, known.find(hashes), strict=True):
        assert [match.known_id for match in matches] == ["photo 2"], name
        (match,) = matches
        assert match.bits <= LIKELY_BITS
        assert match.action == (Action.BLOCK if match.bits <= CERTAIN_BITS else Action.REVIEW)
    others = [hash_photo(np.asarray(scene(number))) for number in range(6, 30)]
    assert known.find(others) == [[]] * 24


def test_a_photo_may_break_several_rules() -> None:
    known = KnownPhotos(as_list(rows(1, "stolen"), rows(1, "withdrawn", "review"), rows(2)))
    (matches,) = known.find([hash_photo(np.asarray(scene(1)))])
    assert {(match.rule, match.action) for match in matches} == {
        ("stolen", Action.BLOCK),
        ("withdrawn", Action.REVIEW),
    }


def test_what_has_no_hash_or_too_little_in_it_matches_nothing(known: KnownPhotos) -> None:
    whole = hash_photo(np.asarray(scene(0)))
    assert known.find([None, whole._replace(quality=49), None]) == [[], [], []]
    assert known.find([]) == []
    assert list(variant_hashes(np.full((90, 90, 3), 200, np.uint8))) == []


def test_a_hash_alone_is_mirrored_about_right() -> None:
    for number in range(6):
        pixels = np.asarray(scene(number))
        mirrored = perceptual_hash(pixels[:, ::-1])[0]
        guessed = mirrored_hash(perceptual_hash(pixels)[0])
        differing = (int.from_bytes(mirrored) ^ int.from_bytes(guessed)).bit_count()
        assert differing <= CERTAIN_BITS
        assert mirrored_hash(guessed) == perceptual_hash(pixels)[0]


def test_a_long_list_is_searched_in_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (20_000, HASH_BYTES), np.uint8)
    columns = [
        pa.array([f"{number}" for number in range(len(hashes))]),
        *(pa.array([value] * len(hashes)) for value in ("r", "block", "whole")),
        pa.array([each.tobytes() for each in hashes], pa.binary()),
    ]
    for name, value in {"MOST_SEARCHED_WHOLE": 1000, "CELLS": 64, "CELLS_SEARCHED": 8}.items():
        monkeypatch.setattr(known_photos, f"_{name}", value)
    known = KnownPhotos(pa.table(columns, schema=KNOWN_PHOTOS))
    asked = hashes[:200].copy()
    asked[:, 0] ^= 0b10110101
    found = known.find([PhotoHashes(each.tobytes(), None, 100) for each in asked])
    right = [
        [match.known_id for match in matches] == [str(number)]
        for number, matches in enumerate(found)
    ]
    assert np.mean(right) >= 0.9


def test_a_wrong_list_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "known.parquet"
    with pytest.raises(SettingsError, match="No such file"):
        read_known_photos(path)
    path.write_bytes(b"not Parquet")
    with pytest.raises(SettingsError, match="not readable"):
        read_known_photos(path)
    table = as_list(rows(1))
    pq.write_table(table.drop_columns(["rule"]), path)
    with pytest.raises(SettingsError, match="column rule is missing"):
        read_known_photos(path)
    pq.write_table(table[:0], path)
    with pytest.raises(SettingsError, match="has no photo"):
        read_known_photos(path)
    for name, value in (("hash", b"short"), ("action", "allow")):
        wrong = pa.Table.from_pylist([{**table.to_pylist()[0], name: value}], schema=KNOWN_PHOTOS)
        pq.write_table(wrong, path)
        with pytest.raises(SettingsError, match="photo 1: a hash has 32 bytes"):
            read_known_photos(path)
