"""Photos end upright, no larger than is needed, the same in every thread, and without a warning."""

import io
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seer_model.photo_reading import read_photo
from seer_model.photos import decode_photo
from tests.unit.encoded_photos import (
    FULL,
    LIMITS,
    SAMPLES,
    decoded,
    difference,
    encode,
    encode_well,
    scene,
    turned,
)

DATA = Path(__file__).parents[3] / "shared/data"


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_orientation_ends_upright(form: str, orientation: int) -> None:
    pixels = decoded(turned(scene(), form, orientation))
    assert pixels.shape == (120, 160, 3)
    assert difference(pixels, scene()) < 2


def test_orientation_also_holds_at_reduced_scale() -> None:
    upright = scene(640, 480)
    small = decode_photo(turned(upright, "JPEG", 6), 120, LIMITS)
    assert small.size == (160, 120)
    assert difference(small, upright.reduce(4)) < 2


BROKEN_EXIF = [
    b"Exif\0\0MM\0*\0\0\0\x08\0\x10junk",
    b"Exif\0\0II*\0\xff\xff\xff\xff",
    b"Exif\0\0not a header",
    b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x05\0\0\xff\xff\0\0\0\0",  # A string.
    b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",  # Value 99.
    b"Exif\0\0",
]


@pytest.mark.parametrize("exif", BROKEN_EXIF)
def test_broken_exif_leaves_the_photo_as_stored(exif: bytes) -> None:
    assert difference(decoded(encode_well(scene(), "JPEG", exif=exif)), scene()) < 2


# Reduced scale


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((1280, 960), 224, (320, 240)),
        ((960, 1280), 224, (240, 320)),
        ((900, 897), 224, (225, 225)),
        ((895, 895), 224, (448, 448)),
        ((4000, 3000), 224, (500, 375)),
        ((300, 200), 224, (300, 200)),
        ((5000, 1), 224, (5000, 1)),
    ],
)
def test_jpeg_is_decoded_at_the_smallest_scale_that_is_large_enough(
    size: tuple[int, int], short_side: int, expected: tuple[int, int]
) -> None:
    image = decode_photo(encode(Image.new("RGB", size), "JPEG"), short_side, LIMITS)
    assert image.size == expected


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_reduced_decode_is_close_to_full_decode(mode: str, progressive: bool) -> None:
    photo = scene(1280, 960)
    data = encode(photo.convert(mode), "JPEG", quality=85, progressive=progressive)
    reduced = decode_photo(data, 224, LIMITS)
    full = decode_photo(data, FULL, LIMITS)
    assert (reduced.size, full.size) == ((320, 240), (1280, 960))
    assert difference(reduced, full.reduce(4)) < 1.5


# Warnings and threads


def malformed_apng() -> bytes:
    data = SAMPLES["APNG"]
    at = data.index(b"acTL")
    no_frames = b"acTL" + bytes(8)
    return data[:at] + no_frames + zlib.crc32(no_frames).to_bytes(4) + data[at + 16 :]


def test_pillow_still_warns_outside_decode_photo() -> None:
    decoded(malformed_apng())
    with (
        pytest.warns(UserWarning, match="APNG") as caught,
        Image.open(io.BytesIO(malformed_apng())),
    ):
        pass
    assert caught[0].filename.endswith("PngImagePlugin.py")


def test_threads_decode_alike_and_in_silence() -> None:
    photos = [*SAMPLES.values(), malformed_apng()]
    photos += [encode(scene(), "JPEG", exif=exif) for exif in BROKEN_EXIF]
    expected = [decoded(data) for data in photos]
    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("always")
        for number, pixels in enumerate(pool.map(decoded, photos * 10)):
            assert np.array_equal(pixels, expected[number % len(photos)])
    assert caught == []


# Real photos


@pytest.mark.photos
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no photos at {DATA}")
@pytest.mark.parametrize("folder", ["grocery", "clothing"])
def test_real_photos_decode(folder: str) -> None:
    paths = sorted((DATA / folder).rglob("*.jpg"))
    for path in paths[:: len(paths) // 40][:40]:
        data = read_photo(str(path), LIMITS)
        full, reduced = decode_photo(data, FULL, LIMITS), decode_photo(data, 100, LIMITS)
        assert min(full.size) >= 224
        assert 100 <= min(reduced.size) < 200
        assert difference(reduced, full.reduce(round(full.width / reduced.width))) < 3
