"""Photos that are unusual but valid: a viewer shows them, so they must be read.

Each kind states what a viewer shows, and how far a colour at the centre of a quarter may be off.
"""

import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.support import icc
from tests.support.encoded_photos import encode, encode_well, turned, ycck_jpeg
from tests.support.heic import HEICS
from tests.support.photo_parts import (
    MEBI,
    bmp,
    card,
    chunk,
    exif,
    gif,
    jpeg_with,
    png,
    png_header,
    png_with,
    segment,
    tiff,
    tiff_end,
    webp,
    webp_frame,
)


class Odd(NamedTuple):
    """How to build a photo, what a viewer shows, and the tolerance of its colours, of 255."""

    build: Callable[[], bytes]
    shows: Callable[[], Image.Image] = card
    tolerance: int = 8


def strip(size: tuple[int, int], form: str) -> Odd:
    image = Image.new("RGB", size, (40, 160, 60))
    return Odd(lambda: encode(image, form), lambda: image)


def grey() -> Image.Image:
    return card("L").convert("RGB")


def white(image: Image.Image, *boxes: tuple[int, int, int, int]) -> Image.Image:
    """An image with parts that are stored as transparent, and so shown as white."""
    image = image.convert("RGB")
    for box in boxes:
        image.paste("white", box)
    return image


UPPER_RIGHT, LOWER_LEFT, LOWER_RIGHT = (48, 0, 96, 32), (0, 32, 48, 64), (48, 32, 96, 64)
RIGHT = (48, 0, 96, 64)


def in_p3(form: str) -> bytes:
    """The card in Display P3, whose values for the same colours are less saturated than in sRGB."""
    return encode_well(in_space(icc.DISPLAY_P3), form, icc_profile=icc.rgb_profile(icc.DISPLAY_P3))


def in_space(matrix: icc.Matrix, exponent: float | None = None) -> Image.Image:
    """The card converted to another RGB space, computed from the definition of that space."""
    values = np.asarray(card(), float) / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    light = (light @ np.array(icc.SRGB) @ np.linalg.inv(np.array(matrix))).clip(0, 1)
    curved = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    values = curved if exponent is None else light ** (1 / exponent)
    return Image.fromarray(np.rint(values * 255).astype(np.uint8))


def adobe_rgb() -> bytes:
    profile = icc.rgb_profile(icc.ADOBE_RGB, icc.gamma(2.19921875))
    return encode_well(in_space(icc.ADOBE_RGB, 2.19921875), "JPEG", icc_profile=profile)


def cmyk_printed() -> Image.Image:
    """Pure cyan, magenta and yellow, one a quarter, and no ink in the fourth."""
    image = Image.new("CMYK", (96, 64), (0, 0, 0, 0))
    image.paste((255, 0, 0, 0), (0, 0, 48, 32))
    image.paste((0, 255, 0, 0), (48, 0, 96, 32))
    image.paste((0, 0, 255, 0), (0, 32, 48, 64))
    return image


def as_printed() -> Image.Image:
    image = Image.new("RGB", (96, 64), "white")
    image.paste((0, 130, 200), (0, 0, 48, 32))
    image.paste((210, 20, 110), (48, 0, 96, 32))
    image.paste((250, 225, 40), (0, 32, 48, 64))
    return image


def linear_grey() -> bytes:
    """Grey with linear values, as its profile states."""
    values = np.asarray(card("L"), float) / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    image = Image.fromarray(np.rint(light * 255).astype(np.uint8))
    return encode(image, "PNG", icc_profile=icc.grey_profile(icc.gamma(1)))


def rows16(image: Image.Image, *, alpha: bool = False) -> list[bytes]:
    """Rows of 16 bits a sample; with alpha, the right half is transparent."""
    samples = np.asarray(image, np.uint16) * 257
    samples = samples.reshape(64, 96, -1)
    if alpha:
        opacity = np.full((64, 96, 1), 65535, np.uint16)
        opacity[:, 48:] = 0
        samples = np.concatenate([samples, opacity], axis=2)
    return [row.astype(">u2").tobytes() for row in samples]


def packed_grey(bits: int, key: int) -> bytes:
    """One grey on the left, and the key colour (transparent) on the right."""
    pixel = 8 // bits
    row = np.full(96, (1 << bits) - 2)
    row[48:] = key
    packed = [
        sum(int(v) << (8 - bits * (i + 1)) for i, v in enumerate(part))
        for part in row.reshape(-1, pixel)
    ]
    return png((96, 64), bits, 0, [bytes(packed)] * 64, chunk(b"tRNS", struct.pack(">H", key)))


def with_key16(colour: int) -> bytes:
    """16 bits a sample; the colour of the lower left quarter is the key colour (transparent)."""
    image = card("L") if colour == 0 else card()
    key = (np.atleast_1d(np.asarray(image)[60, 4]).astype(int) * 257).tolist()
    return png(
        (96, 64), 16, colour, rows16(image), chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    )


def palette(transparency: int | bytes, form: str = "PNG") -> bytes:
    """The card with a palette; `transparency` names transparent entries, as Pillow takes it."""
    image = Image.new("P", (96, 64), 3)
    image.putpalette([200, 40, 30, 40, 160, 60, 30, 60, 180, 230, 230, 220])
    for entry, box in enumerate([(0, 0, 48, 32), (48, 0, 96, 32), (0, 32, 48, 64)]):
        image.paste(entry, box)
    return encode(image, form, transparency=transparency)


def stored_as_rgb() -> bytes:
    """A JPEG that stores RGB instead of YCbCr, as its Adobe marker states."""
    data = encode(Image.merge("YCbCr", card().split()), "JPEG", quality=98, subsampling=0)
    adobe = segment(0xEE, b"Adobe" + bytes([0, 100, 0, 0, 0, 0, 0]))
    return data[:2] + adobe + data[2 + 2 + int.from_bytes(data[4:6]) :]  # Replaces the JFIF marker.


def without_adobe(data: bytes) -> bytes:
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4]) :]


def interlaced_png() -> bytes:
    """Adam7 interlacing, which Pillow cannot write."""
    pixels = np.asarray(card())
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    rows = b"".join(
        b"\0" + row.tobytes()
        for top, left, down, across in passes
        for row in np.ascontiguousarray(pixels[top::down, left::across])
    )
    return (
        png_header((96, 64), interlaced=True) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")
    )


def hidden_default() -> bytes:
    """An APNG whose default image is not part of the animation."""
    control = struct.pack(">5I2H2B", 0, 96, 64, 0, 0, 1, 10, 0, 0)
    frame = struct.pack(">I", 1) + zlib.compress((b"\0" + bytes(96 * 3)) * 64)
    return png_with(
        chunk(b"acTL", struct.pack(">2I", 1, 0)), chunk(b"fcTL", control) + chunk(b"fdAT", frame)
    )


def many_frames_png() -> bytes:
    """An APNG that claims to have 2**31 - 1 frames."""
    control = chunk(b"acTL", struct.pack(">2I", 0x7FFFFFFF, 0))
    return png_with(control + chunk(b"fcTL", struct.pack(">5I2H2B", 0, 96, 64, 0, 0, 1, 10, 0, 0)))


def card_on_a_large_screen() -> Image.Image:
    image = Image.new("RGB", (192, 128), "white")
    image.paste(card(), (96, 64))
    return image


def rle8() -> bytes:
    """Run-length encoded, two runs a row, bottom-up."""
    colours = [(200, 40, 30), (40, 160, 60), (30, 60, 180), (230, 230, 220)]
    rows = [bytes([48, 2, 48, 3, 0, 0])] * 32 + [bytes([48, 0, 48, 1, 0, 0])] * 32
    return bmp((96, 64), 8, b"".join(rows) + b"\0\1", compression=1, colours=colours)


def bmp565() -> bytes:
    red, green, blue = (np.asarray(band, np.uint16) for band in card().split())
    packed = (red >> 3 << 11 | green >> 2 << 5 | blue >> 3)[::-1]
    masks = struct.pack("<3I", 0xF800, 0x07E0, 0x001F)
    return bmp((96, 64), 16, packed.astype("<u2").tobytes(), compression=3, more=masks)


def planar_tiff() -> bytes:
    """Red, green and blue in separate strips."""
    bands, end = b"".join(band.tobytes() for band in card().split()), tiff_end(10)
    tags = [(256, 4, 1, 96), (257, 4, 1, 64), (258, 3, 3, end), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 3, end + 8), (277, 3, 1, 3), (278, 4, 1, 64), (279, 4, 3, end + 8)]
    tags += [(284, 3, 1, 2)]
    strips = struct.pack("<3I", *(end + 20 + 6144 * band for band in range(3)))
    return tiff(tags, struct.pack("<4H", 8, 8, 8, 0) + strips + bands)


def frames(form: str, count: int = 3) -> bytes:
    return encode_well(card(), form, save_all=True, append_images=other_frames(count))


def other_frames(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (96, 64), (index % 256, 0, 0)) for index in range(1, count)]


def many_frames_webp() -> bytes:
    animation = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return webp((96, 64), 2, animation + webp_frame(card()) * 20_000)


def many_frames_gif() -> bytes:
    """2000 frames, the last of three repeated."""
    animation = encode(card(), "GIF", save_all=True, duration=100, append_images=other_frames(3))
    last = animation[animation.rindex(b"!\xf9\x04") : -1]
    return animation[:-1] + last * 1997 + b";"


ODD_PHOTOS: dict[str, Odd] = {
    # Sizes
    "1x1.png": strip((1, 1), "PNG"),
    "1x1.jpg": strip((1, 1), "JPEG"),
    "1x20000.png": strip((1, 20000), "PNG"),
    "20000x1.png": strip((20000, 1), "PNG"),
    "20000x1.jpg": strip((20000, 1), "JPEG"),
    # Bit depth and mode
    "grey16.png": Odd(lambda: png((96, 64), 16, 0, rows16(card("L"))), grey),
    "rgb16.png": Odd(lambda: png((96, 64), 16, 2, rows16(card()))),
    "rgba16.png": Odd(
        lambda: png((96, 64), 16, 6, rows16(card(), alpha=True)),
        lambda: white(card(), RIGHT),
    ),
    "la16.png": Odd(
        lambda: png((96, 64), 16, 4, rows16(card("L"), alpha=True)),
        lambda: white(card("L"), RIGHT),
    ),
    "bilevel.png": Odd(
        lambda: encode(card("L").point(lambda v: 255 * (v > 100)).convert("1"), "PNG"),
        lambda: card("L").point(lambda v: 255 * (v > 100)).convert("RGB"),
    ),
    "interlaced.png": Odd(interlaced_png),
    # Transparency without alpha
    "grey2-key.png": Odd(
        lambda: packed_grey(2, 1),
        lambda: white(Image.new("L", (96, 64), 170), RIGHT),
    ),
    "grey4-key.png": Odd(
        lambda: packed_grey(4, 3),
        lambda: white(Image.new("L", (96, 64), 238), RIGHT),
    ),
    "grey16-key.png": Odd(lambda: with_key16(0), lambda: white(card("L"), LOWER_LEFT)),
    "rgb16-key.png": Odd(lambda: with_key16(2), lambda: white(card(), LOWER_LEFT)),
    "palette-index.png": Odd(lambda: palette(1), lambda: white(card(), UPPER_RIGHT)),
    "palette-bytes.png": Odd(
        lambda: palette(b"\xff\0\xff\0"),
        lambda: white(card(), UPPER_RIGHT, LOWER_RIGHT),
    ),
    "palette-index.gif": Odd(lambda: palette(1, "GIF"), lambda: white(card(), UPPER_RIGHT)),
    # CMYK and other encodings of colour
    "cmyk.jpg": Odd(lambda: encode_well(card("CMYK"), "JPEG")),
    "cmyk-unmarked.jpg": Odd(lambda: without_adobe(encode_well(card("CMYK"), "JPEG"))),
    "ycck.jpg": Odd(lambda: ycck_jpeg(card())),
    "stored-as-rgb.jpg": Odd(stored_as_rgb),
    "cmyk.tiff": Odd(lambda: encode(card("CMYK"), "TIFF")),
    # Colour profiles
    "p3.jpg": Odd(lambda: in_p3("JPEG")),
    "p3.png": Odd(lambda: in_p3("PNG")),
    "p3.webp": Odd(lambda: in_p3("WEBP")),
    "p3.tiff": Odd(lambda: in_p3("TIFF")),
    "p3.avif": Odd(lambda: in_p3("AVIF")),
    "adobe-rgb.jpg": Odd(adobe_rgb),
    "cmyk-profile.jpg": Odd(
        lambda: encode_well(cmyk_printed(), "JPEG", icc_profile=icc.cmyk_profile()),
        as_printed,
        16,
    ),
    "linear-grey.png": Odd(linear_grey, grey),
    "broken-profile.jpg": Odd(lambda: encode_well(card(), "JPEG", icc_profile=b"junk" * 100)),
    "profile-of-another-space.png": Odd(
        lambda: encode(card("L"), "PNG", icc_profile=icc.rgb_profile(icc.ADOBE_RGB)), grey
    ),
    "profile-incomplete.jpg": Odd(lambda: jpeg_with(segment(0xE2, b"ICC_PROFILE\0\1\7junk"))),
    # Orientation
    "turned.jpg": Odd(lambda: turned(card(), "JPEG", 6)),
    "turned.png": Odd(lambda: turned(card(), "PNG", 8)),
    "turned.webp": Odd(lambda: turned(card(), "WEBP", 5)),
    "turned-lzw.tiff": Odd(lambda: turned(card(), "TIFF", 7, compression="tiff_lzw")),
    "turned.avif": Odd(lambda: turned(card(), "AVIF", 3)),
    "broken-exif.jpg": Odd(lambda: jpeg_with(segment(0xE1, exif(b"junk", 9000)))),
    "exif-of-text.jpg": Odd(lambda: jpeg_with(segment(0xE1, b"Exif\0\0not a directory"))),
    # HEIC
    "photo.heic": Odd(lambda: HEICS["card.heic"]),
    "turned.heic": Odd(lambda: HEICS["turned.heic"]),
    "transparent.heic": Odd(lambda: HEICS["transparent.heic"], lambda: white(card(), LOWER_RIGHT)),
    "grey.heic": Odd(lambda: HEICS["grey.heic"], grey),
    "10-bit.heic": Odd(lambda: HEICS["10-bit.heic"]),
    # First of several frames
    "animated.gif": Odd(lambda: frames("GIF"), tolerance=12),
    "animated.webp": Odd(lambda: frames("WEBP")),
    "animated.png": Odd(lambda: frames("PNG")),
    "animated.avif": Odd(lambda: frames("AVIF")),
    "hidden-default.png": Odd(hidden_default),
    "offset-first-frame.gif": Odd(
        lambda: gif(card().quantize(8), (192, 128), (96, 64), b""), card_on_a_large_screen, 12
    ),
    "pages.tiff": Odd(lambda: frames("TIFF", count=200)),
    "burst.mpo": Odd(lambda: frames("MPO")),
    "2000-frames.gif": Odd(many_frames_gif, tolerance=12),
    "20000-frames.webp": Odd(many_frames_webp),
    "billions-of-frames.png": Odd(many_frames_png),
    # Variants of BMP, TIFF and JPEG
    "top-down.bmp": Odd(lambda: bmp((96, -64), 24, card().tobytes("raw", "BGR"))),
    "rle8.bmp": Odd(rle8),
    "565.bmp": Odd(bmp565),
    "planar.tiff": Odd(planar_tiff),
    "big-header.tiff": Odd(lambda: encode(card(), "TIFF", big_tiff=True)),
    "restarts.jpg": Odd(lambda: encode_well(card(), "JPEG", restart_marker_blocks=1)),
    "fill-bytes.jpg": Odd(lambda: jpeg_with(b"\xff" * 500)),
    "with-a-video.jpg": Odd(lambda: encode_well(card(), "JPEG") + b"ftypmp42" + bytes(MEBI)),
    "scans.jpg": Odd(lambda: encode_well(card(), "JPEG", progressive=True)),
}
