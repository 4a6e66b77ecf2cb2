import io
import itertools
import os
import pickle
import threading
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import fsspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

import seer_model.photos
from schemas.rejects import RejectReason
from seer_model.photos import PhotoLimits, PhotoRejected, decode_photo, read_photo

DATA = Path(__file__).parents[3] / "shared/data"
LIMITS = PhotoLimits()
FULL = 1 << 16
"""A short side that no photo here has, so nothing is decoded at reduced scale."""
FORMATS = ["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]
HAS_AIOHTTP = find_spec("aiohttp") is not None

Pixels = npt.NDArray[np.uint8]


def scene(width: int = 160, height: int = 120) -> Image.Image:
    """Like a photo: smooth shapes, some edges, and another colour at each corner."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    red = 128 + 100 * np.sin(5 * x + 2 * y)
    green = 255 * y * height / width % 256
    blue = np.where((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.05, 220, 60 + 40 * np.cos(9 * x))
    return Image.fromarray(np.stack([red, green, blue], axis=2).clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def encode_well(image: Image.Image, form: str, **options: object) -> bytes:
    """Without loss where the format can, else nearly so."""
    best: dict[str, dict[str, object]] = {
        "JPEG": {"quality": 98, "subsampling": 0},
        "MPO": {"quality": 98, "subsampling": 0},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 98, "subsampling": "4:4:4"},
    }
    return encode(image, form, **best.get(form, {}), **options)


def decoded(data: bytes) -> Pixels:
    image = decode_photo(data, FULL, LIMITS)
    assert image.mode == "RGB"
    return np.asarray(image)


def difference(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Mean absolute difference, of 255."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def verdict_on(data: bytes, limits: PhotoLimits = LIMITS) -> RejectReason:
    with pytest.raises(PhotoRejected) as caught:
        decode_photo(data, 224, limits)
    return caught.value.reason


def verdict_on_address(uri: str, limits: PhotoLimits = LIMITS) -> RejectReason:
    with pytest.raises(PhotoRejected) as caught:
        read_photo(uri, limits)
    return caught.value.reason


# Formats and colour modes


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_decodes_to_its_colours(form: str) -> None:
    palette_loss = 6 if form == "GIF" else 2
    assert difference(decoded(encode_well(scene(), form)), scene()) < palette_loss


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_greyscale_decodes_to_equal_channels(form: str) -> None:
    grey = scene().convert("L")
    pixels = decoded(encode_well(grey, form))
    assert (pixels == pixels[:, :, :1]).all()
    assert difference(pixels[:, :, 0], grey) < 2


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF"])
def test_bilevel_decodes_to_black_and_white(form: str) -> None:
    bilevel = scene().convert("1")
    assert difference(decoded(encode(bilevel, form)), bilevel.convert("RGB")) == 0


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_transparent_parts_become_white(form: str) -> None:
    image = Image.new("RGBA", (64, 32), (200, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 16, 32))
    image.paste((0, 0, 0, 128), (16, 0, 32, 32))
    pixels = decoded(encode_well(image, form)).astype(int)
    assert np.abs(pixels[16, 4] - [255, 255, 255]).max() <= 3
    assert np.abs(pixels[16, 24] - [127, 127, 127]).max() <= 3
    assert np.abs(pixels[16, 52] - [200, 0, 0]).max() <= 6


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_with_alpha_is_composited_on_white(form: str) -> None:
    image = Image.new("LA", (4, 4), (40, 255))
    image.putpixel((0, 0), (40, 0))
    pixels = decoded(encode(image, form))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[3, 3].tolist() == [40, 40, 40]


@pytest.mark.parametrize(
    ("form", "transparency"), [("PNG", 0), ("PNG", b"\x00\xff"), ("GIF", 0)], ids=str
)
def test_transparent_palette_entry_becomes_white(form: str, transparency: int | bytes) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 0)
    pixels = decoded(encode(image, form, transparency=transparency))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[3, 3].tolist() == [200, 100, 50]


@pytest.mark.parametrize(
    ("mode", "colour", "key"), [("RGB", (10, 20, 30), (1, 2, 3)), ("L", 10, 1)]
)
def test_transparent_key_colour_becomes_white(mode: str, colour: object, key: object) -> None:
    image = Image.new(mode, (4, 4), colour)
    image.putpixel((0, 0), key)
    pixels = decoded(encode(image, "PNG", transparency=key))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[3, 3].tolist() == list(
        Image.new(mode, (1, 1), colour).convert("RGB").getpixel((0, 0))
    )


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_decodes_to_its_colours(form: str) -> None:
    assert difference(decoded(encode_well(scene().convert("CMYK"), form)), scene()) < 2


def test_ycck_jpeg_decodes_to_its_colours() -> None:
    # Pillow writes no YCCK: give it the components of one, and put the colour transform 2 into
    # the Adobe marker. It inverts every component on the way, as Adobe does.
    inks = Image.merge("RGB", scene().convert("CMYK").split()[:3]).convert("YCbCr")
    inverted = [band.point(lambda value: 255 - value) for band in inks.split()]
    data = encode_well(Image.merge("CMYK", [*inverted, Image.new("L", inks.size, 0)]), "JPEG")
    marker = data.index(b"Adobe")
    data = data[: marker + 11] + b"\x02" + data[marker + 12 :]
    assert difference(decoded(data), scene()) < 2


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_by_257(form: str) -> None:
    values = np.array([[0, 257, 128 * 257, 200 * 257 + 100, 65535]], dtype=np.uint16)
    assert decoded(encode(Image.fromarray(values), form))[0, :, 0].tolist() == [0, 1, 128, 200, 255]


def test_dark_16_bit_grey_stays_dark() -> None:
    values = np.full((2, 2), 300, dtype=np.uint16)
    assert decoded(encode(Image.fromarray(values), "PNG")).max() == 1


def test_16_bit_big_endian_tiff_is_scaled() -> None:
    image = Image.frombytes("I;16B", (2, 1), b"\xff\xff\x80\x80")
    assert decoded(encode(image, "TIFF"))[0, :, 0].tolist() == [255, 128]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 128 * 257, 65535], [0, 128, 255]),
        ([-5, 2**30, 2**31 - 1], [0, 128, 255]),
        ([0, 0, 0], [0, 0, 0]),
    ],
)
def test_32_bit_integer_grey_is_scaled(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.int32))
    assert decoded(encode(image, "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.2, 255.0], [0, 100, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 6e5, 1e6], [0, 153, 255]),
        ([np.nan, np.inf, 1.0], [0, 0, 255]),
        ([-3.0, -2.0, -1.0], [0, 0, 0]),
    ],
)
def test_floating_point_grey_is_scaled(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert decoded(encode(image, "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_other_colour_spaces_of_tiff_decode(mode: str) -> None:
    if mode == "LAB":
        data = encode(Image.new("LAB", (8, 8), (128, 128, 128)), "TIFF")
        assert decoded(data).std() < 20
    else:
        assert difference(decoded(encode(scene().convert(mode), "TIFF")), scene()) < 2


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_compressed_tiff_decodes(compression: str) -> None:
    assert difference(decoded(encode(scene(), "TIFF", compression=compression)), scene()) < 6


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "AVIF", "TIFF", "MPO"])
def test_first_frame_of_many_is_taken(form: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], form, save_all=True, append_images=frames[1:])
    assert difference(decoded(data), np.broadcast_to((255, 0, 0), (32, 32, 3))) < 3


def test_colour_profile_is_left_alone() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert difference(decoded(encode(scene(), "PNG", icc_profile=profile)), scene()) == 0


# Orientation


def stored_as(upright: Pixels, orientation: int) -> Pixels:
    """What a camera stores (EXIF 2.3, 4.6.4): which side of the scene is row 0, and column 0."""
    row, column = [
        ("top", "left"),
        ("top", "right"),
        ("bottom", "right"),
        ("bottom", "left"),
        ("left", "top"),
        ("right", "top"),
        ("right", "bottom"),
        ("left", "bottom"),
    ][orientation - 1]
    stored = upright.transpose(1, 0, 2) if row in ("left", "right") else upright
    if row in ("bottom", "right"):
        stored = stored[::-1]
    if column in ("bottom", "right"):
        stored = stored[:, ::-1]
    return np.ascontiguousarray(stored)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_orientation_ends_upright(form: str, orientation: int) -> None:
    upright = np.asarray(scene())
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode_well(Image.fromarray(stored_as(upright, orientation)), form, exif=exif)
    pixels = decoded(data)
    assert pixels.shape == upright.shape
    assert difference(pixels, upright) < 2


def test_orientation_also_holds_at_reduced_scale() -> None:
    upright = scene(640, 480)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = encode_well(Image.fromarray(stored_as(np.asarray(upright), 6)), "JPEG", exif=exif)
    small = decode_photo(data, 120, LIMITS)
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


# Rejections


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


def decodes_or_rejects(data: bytes) -> None:
    try:
        image = decode_photo(data, 224, LIMITS)
    except PhotoRejected:
        return
    assert image.mode == "RGB"
    assert min(image.size) > 0


SAMPLES = {form: encode(scene(48, 32), form) for form in FORMATS}
SAMPLES["EXIF"] = encode(
    scene(48, 32),
    "JPEG",
    exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\6\0\0\0\0\0\0",
)
SAMPLES["LZW"] = encode(scene(48, 32), "TIFF", compression="tiff_lzw")
SAMPLES["APNG"] = encode(scene(48, 32), "PNG", save_all=True, append_images=[scene(48, 32)])


@given(st.binary(max_size=400), st.sampled_from([b"", *(data[:16] for data in SAMPLES.values())]))
@settings(deadline=None, max_examples=200)
def test_arbitrary_bytes_decode_or_are_rejected(data: bytes, prefix: bytes) -> None:
    decodes_or_rejects(prefix + data)


@given(
    st.sampled_from(["JPEG", "JPEG", "EXIF", *SAMPLES]),
    st.lists(st.tuples(st.integers(0, 1 << 14), st.binary(min_size=1, max_size=4)), max_size=6),
    st.integers(0, 1 << 14),
)
@settings(deadline=None, max_examples=300)
def test_mutated_photos_decode_or_are_rejected(
    form: str, changes: list[tuple[int, bytes]], end: int
) -> None:
    data = bytearray(SAMPLES[form])
    for position, value in changes:
        at = position % len(data)
        data[at : at + len(value)] = value
    decodes_or_rejects(bytes(data[: max(end % (2 * len(data)), 1)]))


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


# Reading


@pytest.mark.parametrize(
    "name",
    ["plain.jpg", "with space.jpg", "100%25.jpg", "Žluť 写真 📷.jpg", "a#b?c=d.jpg", "a::b.jpg"],
)
def test_local_photo_is_read_by_path_and_by_uri(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"photo")
    addresses = [str(path), path.as_uri(), path.as_uri().replace("file://", "file:")]
    addresses.append(path.as_uri().replace("file://", "FILE://localhost"))
    for address in addresses:
        assert read_photo(address, LIMITS) == b"photo"


def test_path_is_taken_literally_and_uri_is_not(tmp_path: Path) -> None:
    (tmp_path / "a%20b.jpg").write_bytes(b"literal")
    (tmp_path / "a b.jpg").write_bytes(b"decoded")
    assert read_photo(f"{tmp_path}/a%20b.jpg", LIMITS) == b"literal"
    assert read_photo(f"file://{tmp_path}/a%20b.jpg", LIMITS) == b"decoded"


def test_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).write_bytes(b"photo")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert read_photo(f"{tmp_path}/\udcff.jpg", LIMITS) == b"photo"
    assert read_photo(f"file://{tmp_path}/%FF.jpg", LIMITS) == b"photo"


def test_relative_path_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(b"photo")
    assert read_photo("photo.jpg", LIMITS) == b"photo"


def test_nothing_there_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("missing.jpg", "file/below.jpg", "dangling", "nul\0.jpg"):
        assert verdict_on_address(f"{tmp_path}/{name}") is RejectReason.NOT_FOUND
    for uri in ("", "file://", "file://photos/a.jpg", f"file://{tmp_path}/missing.jpg"):
        assert verdict_on_address(uri) is RejectReason.NOT_FOUND


def test_directory_is_not_found(tmp_path: Path) -> None:
    for uri in (str(tmp_path), tmp_path.as_uri()):
        assert verdict_on_address(uri) is RejectReason.NOT_FOUND


def test_fifo_and_device_are_not_found_and_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for uri in (f"{tmp_path}/fifo", f"file://{tmp_path}/fifo", "/dev/zero", "local:///dev/zero"):
        assert verdict_on_address(uri) is RejectReason.NOT_FOUND


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file_is_read_failed(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    assert verdict_on_address(str(path)) is RejectReason.READ_FAILED


def test_symlink_loop_is_read_failed(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert verdict_on_address(f"{tmp_path}/loop") is RejectReason.READ_FAILED


def test_file_over_the_limit_is_too_large_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert verdict_on_address(str(path)) is RejectReason.TOO_LARGE


@pytest.mark.parametrize("place", ["local", "memory"])
def test_limit_of_bytes_is_inclusive(tmp_path: Path, place: str) -> None:
    uri = f"{tmp_path}/photo.jpg" if place == "local" else "memory://test_photos/limit.jpg"
    with fsspec.open(uri, "wb") as file:
        file.write(b"12345")
    assert read_photo(uri, PhotoLimits(max_bytes=5)) == b"12345"
    too_small = PhotoLimits(max_bytes=4)
    assert verdict_on_address(uri, too_small) is RejectReason.TOO_LARGE


def test_empty_file_is_read_as_such(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    fsspec.filesystem("memory").pipe("/test_photos/empty.jpg", b"")
    assert read_photo(f"{tmp_path}/empty.jpg", LIMITS) == b""
    assert read_photo("memory://test_photos/empty.jpg", LIMITS) == b""


def test_photo_of_another_store_is_read() -> None:
    fsspec.filesystem("memory").pipe("/test_photos/a b%20é.jpg", b"photo")
    assert read_photo("memory://test_photos/a b%20é.jpg", LIMITS) == b"photo"
    for name in ("missing.jpg", ""):
        uri = f"memory://test_photos/{name}"
        assert verdict_on_address(uri) is RejectReason.NOT_FOUND


def test_failing_store_is_read_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> bytes:
        raise TimeoutError

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", fail)
    assert verdict_on_address("memory://a.jpg") is RejectReason.READ_FAILED


@pytest.mark.parametrize("uri", ["nosuch://bucket/a.jpg", "zip+x://a.jpg", "blockcache://a/b.jpg"])
def test_scheme_without_a_reader_is_unsupported(uri: str) -> None:
    assert verdict_on_address(uri) is RejectReason.UNSUPPORTED_SCHEME


def test_known_scheme_without_its_driver_is_unsupported() -> None:
    fsspec.register_implementation("nodriver", "no_such_package.Store", errtxt="Install it")
    assert verdict_on_address("nodriver://bucket/a.jpg") is RejectReason.UNSUPPORTED_SCHEME


class PhotoServer(BaseHTTPRequestHandler):
    """Serves what its path says; `/endless` until the client goes away."""

    requests: list[str]
    released: threading.Event

    def do_GET(self) -> None:
        self.requests.append(self.path)
        name = self.path.strip("/").partition("?")[0]
        if name == "hangs":
            self.released.wait()
        if name in ("hangs", "drops"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
        elif name == "endless":
            self.send_response(200)
            self.end_headers()
            try:
                for _ in itertools.repeat(None):
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                self.released.set()
        else:
            status = int(name) if name.isdigit() else 200
            body = SAMPLES["JPEG"] * 100 if name == "a%20b.jpg" else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def photo_server() -> Iterator[tuple[str, type[PhotoServer]]]:
    class Handler(PhotoServer):
        requests: list[str] = []  # noqa: RUF012
        released = threading.Event()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", Handler
        Handler.released.set()
        server.shutdown()
        thread.join()


needs_aiohttp = pytest.mark.skipif(not HAS_AIOHTTP, reason="aiohttp is not installed")


@needs_aiohttp
def test_web_photo_is_read_with_one_request(
    photo_server: tuple[str, type[PhotoServer]],
) -> None:
    address, handler = photo_server
    photo = SAMPLES["JPEG"] * 100
    assert read_photo(f"{address}/a%20b.jpg?v=a::b", LIMITS) == photo
    assert handler.requests == ["/a%20b.jpg?v=a::b"]
    exactly, less = PhotoLimits(max_bytes=len(photo)), PhotoLimits(max_bytes=len(photo) - 1)
    assert read_photo(f"{address}/a%20b.jpg", exactly) == photo
    assert verdict_on_address(f"{address}/a%20b.jpg", less) is RejectReason.TOO_LARGE


@needs_aiohttp
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("404", RejectReason.NOT_FOUND),
        ("403", RejectReason.READ_FAILED),
        ("500", RejectReason.READ_FAILED),
        ("503", RejectReason.READ_FAILED),
        ("drops", RejectReason.READ_FAILED),
    ],
)
def test_web_server_that_refuses_a_photo(
    photo_server: tuple[str, type[PhotoServer]], name: str, reason: RejectReason
) -> None:
    address, _ = photo_server
    assert verdict_on_address(f"{address}/{name}") is reason


@needs_aiohttp
def test_empty_web_photo_is_read_as_such(photo_server: tuple[str, type[PhotoServer]]) -> None:
    assert read_photo(f"{photo_server[0]}/200", LIMITS) == b""


@needs_aiohttp
def test_endless_web_photo_is_too_large(photo_server: tuple[str, type[PhotoServer]]) -> None:
    address, handler = photo_server
    limits = PhotoLimits(max_bytes=1 << 20)
    assert verdict_on_address(f"{address}/endless", limits) is RejectReason.TOO_LARGE
    assert handler.released.wait(10), "the connection was left open"


@needs_aiohttp
def test_web_server_that_hangs_is_read_failed(
    photo_server: tuple[str, type[PhotoServer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seer_model.photos, "_HTTP_TIMEOUT_S", 0.2)
    uri = f"{photo_server[0]}/hangs"
    assert verdict_on_address(uri) is RejectReason.READ_FAILED


@needs_aiohttp
def test_unreachable_web_server_is_read_failed() -> None:
    uri = "http://127.0.0.1:1/a.jpg"
    assert verdict_on_address(uri) is RejectReason.READ_FAILED


@pytest.mark.skipif(HAS_AIOHTTP, reason="aiohttp is installed")
def test_web_photo_without_aiohttp_is_unsupported() -> None:
    uri = "https://127.0.0.1/a.jpg"
    assert verdict_on_address(uri) is RejectReason.UNSUPPORTED_SCHEME


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
