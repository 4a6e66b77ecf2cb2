"""What is no photo, or is broken or too large, is rejected for the right reason."""

import pickle
import zlib

import pytest
from PIL import Image

from schemas.rejects import RejectReason
from seer_model.photos import PhotoLimits, PhotoRejected, decode_photo
from tests.unit.encoded_photos import FORMATS, FULL, LIMITS, encode, scene


def verdict_on(data: bytes, limits: PhotoLimits = LIMITS) -> RejectReason:
    with pytest.raises(PhotoRejected) as caught:
        decode_photo(data, 224, limits)
    return caught.value.reason


def test_no_bytes_are_an_empty_file() -> None:
    assert verdict_on(b"") is RejectReason.EMPTY_FILE


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj",
        b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="4" height="4"/></svg>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
        b"\x00\x00\x00\x00ftyp",
        b"RIFF\x04\x00\x00\x00WAVE",
        b"x",
        bytes(1000),
    ],
    ids=["html", "pdf", "svg", "eps", "heic", "mp4", "wave", "byte", "zeros"],
)
def test_other_content_is_not_an_image(data: bytes) -> None:
    assert verdict_on(data) is RejectReason.NOT_AN_IMAGE


def test_format_outside_the_list_is_not_an_image() -> None:
    assert verdict_on(encode(scene(), "PPM")) is RejectReason.NOT_AN_IMAGE


def test_more_bytes_than_allowed_is_too_large() -> None:
    data = encode(scene(), "PNG")
    assert verdict_on(data, PhotoLimits(max_bytes=len(data) - 1)) is RejectReason.TOO_LARGE
    decode_photo(data, FULL, PhotoLimits(max_bytes=len(data)))


@pytest.mark.parametrize("form", FORMATS)
def test_more_pixels_than_allowed_is_too_large(form: str) -> None:
    data = encode(scene(), form)
    assert verdict_on(data, PhotoLimits(max_pixels=160 * 120 - 1)) is RejectReason.TOO_LARGE
    decode_photo(data, FULL, PhotoLimits(max_pixels=160 * 120))


@pytest.mark.parametrize("side", [10_001, 12_000, 100_000])
def test_bomb_is_refused_from_its_header(side: int) -> None:
    data = encode(Image.new("1", (8, 8)), "PNG")
    header = b"IHDR" + side.to_bytes(4) * 2 + data[24:29]
    data = data[:12] + header + zlib.crc32(header).to_bytes(4) + data[33:]
    assert verdict_on(data) is RejectReason.TOO_LARGE


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_bomb_that_pillow_notices_first_is_too_large(form: str) -> None:
    data = bytearray(
        encode(Image.new("RGB", (8, 8)), form, **({"lossless": True} if form == "WEBP" else {}))
    )
    if form == "GIF":  # A first frame that is larger than the screen.
        frame = data.index(b",\0\0\0\0\x08\0\x08\0")
        data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    else:  # The 14 bits each of width and height, after the signature of the lossless stream.
        bits = int.from_bytes(data[21:25], "little") | 0xFFFFFFF
        data[21:25] = bits.to_bytes(4, "little")
    assert verdict_on(bytes(data)) is RejectReason.TOO_LARGE


def test_pixel_limit_above_that_of_pillow_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for form in ("JPEG", "PNG", "BMP", "AVIF"):
        decode_photo(encode(scene(), form), FULL, LIMITS)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_photo_cut_at_every_50th_byte_is_refused(form: str) -> None:
    data = encode(scene(320, 240), form)
    # A PNG that lacks but its last chunk and checksums has all its pixels.
    reasons = [verdict_on(data[:end]) for end in range(50, len(data) - 24, 50)]
    assert len(reasons) > 20
    assert set(reasons) <= {RejectReason.TRUNCATED, RejectReason.UNREADABLE}
    assert reasons.count(RejectReason.TRUNCATED) >= len(reasons) - 1


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_half_a_photo_is_refused(form: str, part: float) -> None:
    data = encode(scene(), form)
    reason = verdict_on(data[: int(len(data) * part)])
    assert reason in {RejectReason.TRUNCATED, RejectReason.UNREADABLE}


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_cut_compressed_tiff_is_refused(compression: str) -> None:
    data = encode(scene(), "TIFF", compression=compression)
    reason = verdict_on(data[: len(data) // 2])
    assert reason in {RejectReason.TRUNCATED, RejectReason.UNREADABLE}


@pytest.mark.parametrize("form", ["PNG", "WEBP", "AVIF"])
def test_overwritten_middle_is_unreadable(form: str) -> None:
    data = bytearray(encode(scene(), form))
    data[40:120] = bytes(80)
    assert verdict_on(bytes(data)) is RejectReason.UNREADABLE


def test_rejection_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(PhotoRejected(RejectReason.TRUNCATED)))
    assert error.reason is RejectReason.TRUNCATED
    assert str(error) == "truncated"
