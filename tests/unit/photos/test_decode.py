"""Photos are decoded upright, at the smallest sufficient scale, or rejected with a reason."""

import io
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from schemas.rejects import RejectReason
from seer_model.photos.decode import decode_photo
from seer_model.photos.fetch import read_photo
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from tests.support.encoded_photos import (
    FORMATS,
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
from tests.support.heic import HEICS
from tests.support.paths import DATA
from tests.support.photo_parts import card

# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_orientation_is_decoded_upright(form: str, orientation: int) -> None:
    pixels = decoded(turned(scene(), form, orientation))
    assert pixels.shape == (120, 160, 3)
    assert difference(pixels, scene()) < 2


def test_orientation_is_applied_at_reduced_scale() -> None:
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
def test_jpeg_is_decoded_at_the_smallest_sufficient_scale(
    size: tuple[int, int], short_side: int, expected: tuple[int, int]
) -> None:
    image = decode_photo(encode(Image.new("RGB", size), "JPEG"), short_side, LIMITS)
    assert image.size == expected


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_reduced_scale_is_close_to_full_scale(mode: str, progressive: bool) -> None:
    data = encode(scene(960, 960).convert(mode), "JPEG", quality=85, progressive=progressive)
    reduced = decode_photo(data, 224, LIMITS)
    full = decode_photo(data, FULL, LIMITS)
    assert (reduced.size, full.size) == ((240, 240), (960, 960))
    assert difference(reduced, full.reduce(4)) < 1.5


@pytest.mark.photos
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no photos at {DATA}")
@pytest.mark.parametrize("folder", ["grocery", "clothing"])
def test_real_photos_are_decoded(folder: str) -> None:
    paths = sorted((DATA / folder).rglob("*.jpg"))
    for path in paths[:: len(paths) // 40][:40]:
        data = read_photo(str(path), LIMITS)
        full, reduced = decode_photo(data, FULL, LIMITS), decode_photo(data, 100, LIMITS)
        assert min(full.size) >= 224
        assert 100 <= min(reduced.size) < 200
        assert difference(reduced, full.reduce(round(full.width / reduced.width))) < 3


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


def test_decoding_is_thread_safe_and_silent() -> None:
    photos = [*SAMPLES.values(), malformed_apng()]
    photos += [encode(scene(), "JPEG", exif=exif) for exif in BROKEN_EXIF]
    expected = [decoded(data) for data in photos]
    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("always")
        for number, pixels in enumerate(pool.map(decoded, photos * 10)):
            assert np.array_equal(pixels, expected[number % len(photos)])
    assert caught == []


# Limits


def reject_reason(data: bytes, limits: PhotoLimits = LIMITS) -> RejectReason:
    with pytest.raises(PhotoRejected) as caught:
        decode_photo(data, 224, limits)
    return caught.value.reason


def test_limit_of_bytes_is_inclusive() -> None:
    data = encode(scene(), "PNG")
    assert reject_reason(data, PhotoLimits(max_bytes=len(data) - 1)) is RejectReason.TOO_LARGE
    decode_photo(data, FULL, PhotoLimits(max_bytes=len(data)))


@pytest.mark.parametrize("form", FORMATS)
def test_limit_of_pixels_is_inclusive(form: str) -> None:
    data = encode(scene(), form)
    assert reject_reason(data, PhotoLimits(max_pixels=160 * 120 - 1)) is RejectReason.TOO_LARGE
    decode_photo(data, FULL, PhotoLimits(max_pixels=160 * 120))


def test_limit_of_pixels_replaces_that_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for form in ("JPEG", "PNG", "BMP", "AVIF"):
        decode_photo(encode(scene(), form), FULL, LIMITS)


# Damage


@pytest.mark.parametrize("form", ["PNG", "WEBP", "AVIF"])
def test_photo_with_overwritten_bytes_is_unreadable(form: str) -> None:
    data = bytearray(encode(scene(), form))
    data[40:120] = bytes(80)
    assert reject_reason(bytes(data)) is RejectReason.UNREADABLE


END = b"\xff\xd9"
JPEGS: dict[str, tuple[str, dict[str, object]]] = {
    "baseline": ("RGB", {}),
    "optimised": ("RGB", {"optimize": True}),
    "progressive": ("RGB", {"progressive": True}),
    "restarts": ("RGB", {"restart_marker_rows": 1}),
    "grey": ("L", {}),
    "ink": ("CMYK", {}),
}


def jpeg(kind: str, height: int | None = None) -> bytes:
    """A JPEG; its header may promise another height than it has."""
    mode, options = JPEGS[kind]
    data = bytearray(encode(scene(640, 480).convert(mode), "JPEG", quality=85, **options))
    if height is not None:
        frame = data.index(b"\xff\xc2" if "progressive" in options else b"\xff\xc0") + 5
        data[frame : frame + 2] = height.to_bytes(2)
    return bytes(data)


@pytest.mark.parametrize("short_side", [100, FULL])
@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("kind", JPEGS)
def test_half_a_jpeg_is_never_used(kind: str, share: float, short_side: int) -> None:
    """Pillow would use it, with the missing part grey."""
    data = jpeg(kind)
    kept = data[: int(share * len(data))]
    zeros = bytes(len(data) - len(kept))
    for half in (kept, kept + END, kept + zeros, kept + zeros + END, jpeg(kind, height=1000)):
        with pytest.raises(PhotoRejected) as caught:
            decode_photo(half, short_side, LIMITS)
        assert caught.value.reason in (RejectReason.TRUNCATED, RejectReason.UNREADABLE)


@pytest.mark.parametrize("kind", JPEGS)
def test_jpeg_with_a_harmless_oddity_is_used(kind: str) -> None:
    """Padding, fill bytes, an unknown version of JFIF, and what phones append."""
    data = jpeg(kind)
    whole = decoded(data)
    first_table = data.index(b"\xff\xdb")
    odd = [
        data[:-2] + bytes(12) + END,
        data[:-2] + b"\xff" * 500 + END,
        data + bytes(5000),
        data + data[: len(data) // 2],
        data[:first_table] + b"\xff" * 100 + data[first_table:],
        data[:first_table] + b"junk" + data[first_table:],
        data.replace(b"JFIF\0\1", b"JFIF\0\7"),
    ]
    for photo in odd:
        assert np.array_equal(decoded(photo), whole)


@pytest.mark.parametrize("kind", JPEGS)
def test_pixels_of_a_jpeg_are_those_of_pillow(kind: str) -> None:
    for size in (100, 240, FULL):
        with Image.open(io.BytesIO(jpeg(kind))) as image:
            image.draft(None, (size, size))
            expected = np.asarray(image.convert("RGB"))
        assert np.array_equal(decode_photo(jpeg(kind), size, LIMITS), expected)


def test_heic_truncated_at_any_byte_is_rejected() -> None:
    data = HEICS["card.heic"]
    decoded(data)
    for end in range(40, len(data)):
        assert reject_reason(data[:end]) in (RejectReason.TRUNCATED, RejectReason.UNREADABLE)


# Bytes at the end that hold no pixels: checksum and end chunk of a PNG, end markers of a GIF.
TRAILING_BYTES = {"PNG": 21, "GIF": 2}
# Truncation of a TIFF looks like corruption; that of a WebP never does.
MIN_TRUNCATED_SHARE = {"TIFF": 0.0, "WEBP": 1.0}


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("MPO", {}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"compression": "packbits"}),
        ("AVIF", {}),
    ],
)
def test_photo_truncated_at_any_byte_is_rejected_or_complete(
    form: str, options: dict[str, object]
) -> None:
    data = encode(card().resize((40, 28), Image.Resampling.BICUBIC), form, **options)
    whole = decoded(data)
    reasons = []
    for end in range(len(data)):
        try:
            image = decode_photo(data[:end], FULL, LIMITS)
        except PhotoRejected as rejected:
            reasons.append(rejected.reason)
        else:
            needed = len(data) - TRAILING_BYTES.get(form, 0)
            assert end >= needed, f"decoded from {end} of {len(data)} bytes"
            assert np.array_equal(image, whole)
    assert reasons[0] is RejectReason.EMPTY_FILE
    within_signature = reasons.count(RejectReason.NOT_AN_IMAGE)
    assert set(reasons[1 : 1 + within_signature]) == {RejectReason.NOT_AN_IMAGE}
    assert within_signature < 16
    later = reasons[1 + within_signature :]
    assert set(later) <= {RejectReason.TRUNCATED, RejectReason.UNREADABLE}
    share = MIN_TRUNCATED_SHARE.get(form, 0.9)
    assert later.count(RejectReason.TRUNCATED) >= share * len(later)
