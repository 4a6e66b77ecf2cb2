"""PDQ hashes: the bits of Meta's own code, and what is inside a frame."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from demo.samples.products import KINDS
from demo.samples.scenes import draw_scene
from seer_model.photos.frame import without_frame
from seer_model.photos.perceptual_hash import HASH_BYTES, hash_photo, perceptual_hash
from seer_model.photos.square import Pixels
from tests.support.edited_photos import edits


def waves(rows: int, columns: int) -> Pixels:
    y, x = np.mgrid[:rows, :columns]
    channels = [
        127 + 80 * np.sin((x * a + y * b) / c) + 40 * np.cos(x * y / d)
        for a, b, c, d in ((3, 1, 17, 900), (1, 2, 29, 700), (2, 5, 41, 500))
    ]
    return np.clip(np.stack(channels, 2), 0, 255).astype(np.uint8)


def distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


@pytest.mark.parametrize(
    ("rows", "columns", "expected", "quality"),
    [
        (224, 224, "6d34cb64926426c4cdc899cd7399c7171e3d6471f0e9a5c30f86fa0f00161bff", 100),
        (300, 401, "f871f0c1c0f171c1829503270fe11e27ffa16827f40fa07a000f01fa07dffffb", 100),
        (97, 513, "35b66966db6436c46ccc99cc339ce7199e397c71f0e1c1430e43fccb801f0ab5", 100),
        (64, 64, "db524bf8d552c6c8d5525eb851527af89552bbf85552ebf85552aef855520005", 67),
    ],
)
def test_bits_and_quality_are_those_of_pdqhash(
    rows: int, columns: int, expected: str, quality: int
) -> None:
    """Computed by pdqhash 0.2.8; sums in another order may turn a bit at the median."""
    found, found_quality = perceptual_hash(waves(rows, columns))
    assert distance(found, bytes.fromhex(expected)) <= 2
    assert found_quality == quality


def test_an_edited_photo_is_near_and_another_one_far() -> None:
    scenes = [draw_scene(KINDS[n % 6], n, np.random.default_rng(n)) for n in range(6)]
    hashes = [perceptual_hash(np.asarray(scene))[0] for scene in scenes]
    for name, data in edits(scenes[0]):
        edited = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        found = hash_photo(edited)
        near = min(distance(each, hashes[0]) for each in (found.whole, found.unframed) if each)
        if name in ("compressed", "half the size", "brighter", "paler", "framed"):
            assert near <= 31, name
    for other in hashes[1:]:
        assert distance(hashes[0], other) > 64


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (200, 30, 90)])
def test_a_frame_is_cut_off(colour: tuple[int, int, int]) -> None:
    photo = np.asarray(draw_scene(KINDS[0], 3, np.random.default_rng(3)).resize((240, 180)))
    framed = np.empty((220, 300, 3), np.uint8)
    framed[:] = colour
    framed[25:205, 30:270] = photo
    inside = without_frame(framed)
    assert abs(inside.shape[0] - 180) <= 4
    assert abs(inside.shape[1] - 240) <= 4
    assert hash_photo(framed).unframed is not None


def test_a_photo_without_a_frame_is_left_as_it_is() -> None:
    photo = waves(120, 160)
    assert without_frame(photo) is photo
    assert hash_photo(photo).unframed is None


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 900), (4, 50), (300, 3)])
def test_what_is_too_small_has_no_quality(rows: int, columns: int) -> None:
    assert perceptual_hash(waves(rows, columns)) == (bytes(HASH_BYTES), 0)


def test_a_photo_of_one_colour_has_no_quality() -> None:
    assert hash_photo(np.full((100, 100, 3), 255, np.uint8)).quality == 0


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1))
def test_any_pixels_can_be_hashed(rows: int, columns: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
    found = hash_photo(pixels)
    assert len(found.whole) == HASH_BYTES
    assert 0 <= found.quality <= 100
    assert found == hash_photo(pixels.copy())
