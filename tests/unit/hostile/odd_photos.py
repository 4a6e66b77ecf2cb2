"""Photos that are unusual and right: a person could view them, and so they must be read.

Each kind has what a person sees, and how far a colour at the middle of a corner may be off, of 255.
"""

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from tests.unit.encoded_photos import encode, encode_well, turned, ycck_jpeg
from tests.unit.hostile import drawn_photos as drawn
from tests.unit.hostile import icc
from tests.unit.hostile.photo_parts import MEBI, bmp, card, exif, gif, jpeg_with, png, segment


class Odd(NamedTuple):
    """How to make a photo, what it shows, and the tolerance of that."""

    build: Callable[[], bytes]
    shows: Callable[[], Image.Image] = card
    tolerance: int = 8


def strip(size: tuple[int, int], form: str) -> Odd:
    image = Image.new("RGB", size, (40, 160, 60))
    return Odd(lambda: encode(image, form), lambda: image)


ODD_PHOTOS: dict[str, Odd] = {
    # Sizes
    "1x1.png": strip((1, 1), "PNG"),
    "1x1.jpg": strip((1, 1), "JPEG"),
    "1x20000.png": strip((1, 20000), "PNG"),
    "20000x1.png": strip((20000, 1), "PNG"),
    "20000x1.jpg": strip((20000, 1), "JPEG"),
    # Depth and mode
    "grey16.png": Odd(lambda: png((96, 64), 16, 0, drawn.rows16(card("L"))), drawn.grey),
    "rgb16.png": Odd(lambda: png((96, 64), 16, 2, drawn.rows16(card()))),
    "rgba16.png": Odd(
        lambda: png((96, 64), 16, 6, drawn.rows16(card(), alpha=True)),
        lambda: drawn.white(card(), drawn.RIGHT),
    ),
    "la16.png": Odd(
        lambda: png((96, 64), 16, 4, drawn.rows16(card("L"), alpha=True)),
        lambda: drawn.white(card("L"), drawn.RIGHT),
    ),
    "bilevel.png": Odd(
        lambda: encode(card("L").point(lambda v: 255 * (v > 100)).convert("1"), "PNG"),
        lambda: card("L").point(lambda v: 255 * (v > 100)).convert("RGB"),
    ),
    "interlaced.png": Odd(drawn.interlaced_png),
    # Transparency without alpha
    "grey2-key.png": Odd(
        lambda: drawn.packed_grey(2, 1),
        lambda: drawn.white(Image.new("L", (96, 64), 170), drawn.RIGHT),
    ),
    "grey4-key.png": Odd(
        lambda: drawn.packed_grey(4, 3),
        lambda: drawn.white(Image.new("L", (96, 64), 238), drawn.RIGHT),
    ),
    "grey16-key.png": Odd(
        lambda: drawn.with_key16(0), lambda: drawn.white(card("L"), drawn.LOWER_LEFT)
    ),
    "rgb16-key.png": Odd(
        lambda: drawn.with_key16(2), lambda: drawn.white(card(), drawn.LOWER_LEFT)
    ),
    "palette-index.png": Odd(
        lambda: drawn.palette(1), lambda: drawn.white(card(), drawn.UPPER_RIGHT)
    ),
    "palette-bytes.png": Odd(
        lambda: drawn.palette(b"\xff\0\xff\0"),
        lambda: drawn.white(card(), drawn.UPPER_RIGHT, drawn.LOWER_RIGHT),
    ),
    "palette-index.gif": Odd(
        lambda: drawn.palette(1, "GIF"), lambda: drawn.white(card(), drawn.UPPER_RIGHT)
    ),
    # Inks and other ways to store colours
    "cmyk.jpg": Odd(lambda: encode_well(card("CMYK"), "JPEG")),
    "cmyk-unmarked.jpg": Odd(lambda: drawn.without_adobe(encode_well(card("CMYK"), "JPEG"))),
    "ycck.jpg": Odd(lambda: ycck_jpeg(card())),
    "stored-as-rgb.jpg": Odd(drawn.stored_as_rgb),
    "cmyk.tiff": Odd(lambda: encode(card("CMYK"), "TIFF")),
    # Colour profiles
    "p3.jpg": Odd(lambda: drawn.in_p3("JPEG")),
    "p3.png": Odd(lambda: drawn.in_p3("PNG")),
    "p3.webp": Odd(lambda: drawn.in_p3("WEBP")),
    "p3.tiff": Odd(lambda: drawn.in_p3("TIFF")),
    "p3.avif": Odd(lambda: drawn.in_p3("AVIF")),
    "adobe-rgb.jpg": Odd(drawn.adobe_rgb),
    "profile-of-inks.jpg": Odd(
        lambda: encode_well(drawn.cmyk_printed(), "JPEG", icc_profile=icc.cmyk_profile()),
        drawn.as_printed,
        16,
    ),
    "linear-grey.png": Odd(drawn.linear_grey, drawn.grey),
    "broken-profile.jpg": Odd(lambda: encode_well(card(), "JPEG", icc_profile=b"junk" * 100)),
    "profile-of-others.png": Odd(
        lambda: encode(card("L"), "PNG", icc_profile=icc.rgb_profile(icc.ADOBE_RGB)), drawn.grey
    ),
    "profile-in-parts.jpg": Odd(lambda: jpeg_with(segment(0xE2, b"ICC_PROFILE\0\1\7junk"))),
    # Which way is up
    "turned.jpg": Odd(lambda: turned(card(), "JPEG", 6)),
    "turned.png": Odd(lambda: turned(card(), "PNG", 8)),
    "turned.webp": Odd(lambda: turned(card(), "WEBP", 5)),
    "turned-lzw.tiff": Odd(lambda: turned(card(), "TIFF", 7, compression="tiff_lzw")),
    "turned.avif": Odd(lambda: turned(card(), "AVIF", 3)),
    "broken-exif.jpg": Odd(lambda: jpeg_with(segment(0xE1, exif(b"junk", 9000)))),
    "exif-of-text.jpg": Odd(lambda: jpeg_with(segment(0xE1, b"Exif\0\0not a directory"))),
    # The first of many
    "animated.gif": Odd(lambda: drawn.frames("GIF"), tolerance=12),
    "animated.webp": Odd(lambda: drawn.frames("WEBP")),
    "animated.png": Odd(lambda: drawn.frames("PNG")),
    "animated.avif": Odd(lambda: drawn.frames("AVIF")),
    "hidden-default.png": Odd(drawn.hidden_default),
    "offset-first-frame.gif": Odd(
        lambda: gif(card().quantize(8), (192, 128), (96, 64), b""), drawn.on_a_large_screen, 12
    ),
    "pages.tiff": Odd(lambda: drawn.frames("TIFF", count=200)),
    "burst.mpo": Odd(lambda: drawn.frames("MPO")),
    "2000-frames.gif": Odd(lambda: drawn.frames("GIF", count=2000), tolerance=12),
    "20000-frames.webp": Odd(drawn.many_frames_webp),
    "billions-of-frames.png": Odd(drawn.many_frames_png),
    # BMP, TIFF and what follows a JPEG
    "top-down.bmp": Odd(lambda: bmp((96, -64), 24, card().tobytes("raw", "BGR"))),
    "rle8.bmp": Odd(drawn.rle8),
    "565.bmp": Odd(drawn.bmp565),
    "planar.tiff": Odd(drawn.planar_tiff),
    "big-header.tiff": Odd(lambda: encode(card(), "TIFF", big_tiff=True)),
    "restarts.jpg": Odd(lambda: encode_well(card(), "JPEG", restart_marker_blocks=1)),
    "fill-bytes.jpg": Odd(lambda: jpeg_with(b"\xff" * 500)),
    "with-a-video.jpg": Odd(lambda: encode_well(card(), "JPEG") + b"ftypmp42" + bytes(MEBI)),
    "scans.jpg": Odd(lambda: encode_well(card(), "JPEG", progressive=True)),
}
