"""Photos of every format, mode, depth and profile are decoded to the colours a viewer shows."""

import numpy as np
import pytest
from PIL import Image

from seer_model.photos.decode import decode_photo
from tests.support.encoded_photos import (
    FORMATS,
    FULL,
    LIMITS,
    decoded,
    difference,
    encode,
    encode_well,
    scene,
    ycck_jpeg,
)
from tests.support.odd_photos import ODD_PHOTOS


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_keeps_its_colours(form: str) -> None:
    palette_loss = 6 if form == "GIF" else 2
    assert difference(decoded(encode_well(scene(), form)), scene()) < palette_loss


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_greyscale_has_equal_channels(form: str) -> None:
    grey = scene().convert("L")
    pixels = decoded(encode_well(grey, form))
    assert (pixels == pixels[:, :, :1]).all()
    assert difference(pixels[:, :, 0], grey) < 2


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF"])
def test_bilevel_is_black_and_white(form: str) -> None:
    bilevel = scene().convert("1")
    assert difference(decoded(encode(bilevel, form)), bilevel.convert("RGB")) == 0


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_alpha_is_composited_on_white(form: str) -> None:
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
def test_cmyk_keeps_its_colours(form: str) -> None:
    assert difference(decoded(encode_well(scene().convert("CMYK"), form)), scene()) < 2


def test_ycck_jpeg_keeps_its_colours() -> None:
    assert difference(decoded(ycck_jpeg(scene())), scene()) < 2


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_is_divided_by_257(form: str) -> None:
    values = np.array([[0, 257, 128 * 257, 200 * 257 + 100, 65535]], dtype=np.uint16)
    assert decoded(encode(Image.fromarray(values), form))[0, :, 0].tolist() == [0, 1, 128, 200, 255]


def test_dark_16_bit_grey_stays_dark() -> None:
    values = np.full((2, 2), 300, dtype=np.uint16)
    assert decoded(encode(Image.fromarray(values), "PNG")).max() == 1


def test_16_bit_big_endian_tiff_is_divided_by_257() -> None:
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
def test_32_bit_integer_grey_is_scaled_by_its_white_level(
    values: list[int], expected: list[int]
) -> None:
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
def test_floating_point_grey_is_scaled_by_its_white_level(
    values: list[float], expected: list[int]
) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert decoded(encode(image, "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_other_colour_spaces_of_tiff_are_converted(mode: str) -> None:
    if mode == "LAB":
        data = encode(Image.new("LAB", (8, 8), (128, 128, 128)), "TIFF")
        assert decoded(data).std() < 20
    else:
        assert difference(decoded(encode(scene().convert(mode), "TIFF")), scene()) < 2


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_compressed_tiff_is_decoded(compression: str) -> None:
    assert difference(decoded(encode(scene(), "TIFF", compression=compression)), scene()) < 6


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "AVIF", "TIFF", "MPO"])
def test_first_of_several_frames_is_decoded(form: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], form, save_all=True, append_images=frames[1:])
    assert difference(decoded(data), np.broadcast_to((255, 0, 0), (32, 32, 3))) < 3


@pytest.mark.parametrize("kind", ODD_PHOTOS)
def test_unusual_photo_is_decoded_as_a_viewer_shows_it(kind: str) -> None:
    odd = ODD_PHOTOS[kind]
    image, shown = decode_photo(odd.build(), FULL, LIMITS), odd.shows()
    assert (image.size, image.mode) == (shown.size, "RGB")
    for across, down in ((1, 1), (3, 1), (1, 3), (3, 3)):  # The centre of each quarter.
        centre = across * shown.width // 4, down * shown.height // 4
        found, expected = (np.array(one.getpixel(centre), int) for one in (image, shown))
        assert np.abs(found - expected).max() <= odd.tolerance, f"{centre}: {found}, not {expected}"


def test_quarters_of_the_card_differ_by_more_than_any_tolerance() -> None:
    """Otherwise a photo in the wrong orientation or colours could pass."""
    card = ODD_PHOTOS["rgb16.png"].shows()
    corners = [card.getpixel(at) for at in ((4, 4), (92, 4), (4, 60), (92, 60))]
    assert len({*corners}) == 4
    apart = [np.abs(np.subtract(a, b)).max() for a in corners for b in corners if a != b]
    assert min(apart) > 100
