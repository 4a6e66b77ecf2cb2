"""What is on the odd photos of `odd_photos`, and how those are stored that Pillow cannot write."""

import struct
import zlib

import numpy as np
from PIL import Image

from tests.unit.encoded_photos import encode, encode_well
from tests.unit.hostile import icc
from tests.unit.hostile.photo_parts import (
    bmp,
    card,
    chunk,
    png,
    png_header,
    png_with,
    segment,
    tiff,
    tiff_end,
    webp,
    webp_frame,
)


def grey() -> Image.Image:
    return card("L").convert("RGB")


def white(image: Image.Image, *boxes: tuple[int, int, int, int]) -> Image.Image:
    """An image, some parts of which are transparent and so become white."""
    image = image.convert("RGB")
    for box in boxes:
        image.paste("white", box)
    return image


UPPER_RIGHT, LOWER_LEFT, LOWER_RIGHT = (48, 0, 96, 32), (0, 32, 48, 64), (48, 32, 96, 64)
RIGHT = (48, 0, 96, 64)


def in_p3(form: str) -> bytes:
    """The colours of the card in Display P3, whose numbers are less extreme than those of sRGB."""
    return encode_well(in_space(icc.DISPLAY_P3), form, icc_profile=icc.rgb_profile(icc.DISPLAY_P3))


def in_space(matrix: icc.Matrix, exponent: float | None = None) -> Image.Image:
    """The card's colours as another RGB space has them, by its definition."""
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
    """A page of one ink a corner, and no ink at the last."""
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
    """Grey whose numbers are amounts of light, as its profile says."""
    values = np.asarray(card("L"), float) / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    image = Image.fromarray(np.rint(light * 255).astype(np.uint8))
    return encode(image, "PNG", icc_profile=icc.grey_profile(icc.gamma(1)))


def rows16(image: Image.Image, *, alpha: bool = False) -> list[bytes]:
    """Rows of 16 bits a sample, the right half transparent where there is alpha."""
    samples = np.asarray(image, np.uint16) * 257
    samples = samples.reshape(64, 96, -1)
    if alpha:
        opacity = np.full((64, 96, 1), 65535, np.uint16)
        opacity[:, 48:] = 0
        samples = np.concatenate([samples, opacity], axis=2)
    return [row.astype(">u2").tobytes() for row in samples]


def packed_grey(bits: int, key: int) -> bytes:
    """All of one grey, and its right half of the transparent one."""
    pixel = 8 // bits
    row = np.full(96, (1 << bits) - 2)
    row[48:] = key
    packed = [
        sum(int(v) << (8 - bits * (i + 1)) for i, v in enumerate(part))
        for part in row.reshape(-1, pixel)
    ]
    return png((96, 64), bits, 0, [bytes(packed)] * 64, chunk(b"tRNS", struct.pack(">H", key)))


def with_key16(colour: int) -> bytes:
    """16 bits, the colour of the card's lower left corner being the transparent one."""
    image = card("L") if colour == 0 else card()
    key = (np.atleast_1d(np.asarray(image)[60, 4]).astype(int) * 257).tolist()
    return png(
        (96, 64), 16, colour, rows16(image), chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    )


def palette(transparency: int | bytes, form: str = "PNG") -> bytes:
    """The card in a palette, whose entries for green and grey are transparent or only one is."""
    image = Image.new("P", (96, 64), 3)
    image.putpalette([200, 40, 30, 40, 160, 60, 30, 60, 180, 230, 230, 220])
    for entry, box in enumerate([(0, 0, 48, 32), (48, 0, 96, 32), (0, 32, 48, 64)]):
        image.paste(entry, box)
    return encode(image, form, transparency=transparency)


def stored_as_rgb() -> bytes:
    """A JPEG of red, green and blue, as its Adobe marker says, instead of luma and chroma."""
    data = encode(Image.merge("YCbCr", card().split()), "JPEG", quality=98, subsampling=0)
    adobe = segment(0xEE, b"Adobe" + bytes([0, 100, 0, 0, 0, 0, 0]))
    return data[:2] + adobe + data[2 + 2 + int.from_bytes(data[4:6]) :]  # In the stead of JFIF's.


def without_adobe(data: bytes) -> bytes:
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4]) :]


def interlaced_png() -> bytes:
    """Adam7, of which Pillow writes none."""
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
    """An APNG whose plain image is no part of the animation."""
    control = struct.pack(">5I2H2B", 0, 96, 64, 0, 0, 1, 10, 0, 0)
    frame = struct.pack(">I", 1) + zlib.compress((b"\0" + bytes(96 * 3)) * 64)
    return png_with(
        chunk(b"acTL", struct.pack(">2I", 1, 0)), chunk(b"fcTL", control) + chunk(b"fdAT", frame)
    )


def many_frames_png() -> bytes:
    """An APNG that says it has two thousand million frames."""
    control = chunk(b"acTL", struct.pack(">2I", 0x7FFFFFFF, 0))
    return png_with(control + chunk(b"fcTL", struct.pack(">5I2H2B", 0, 96, 64, 0, 0, 1, 10, 0, 0)))


def on_a_large_screen() -> Image.Image:
    image = Image.new("RGB", (192, 128), "white")
    image.paste(card(), (96, 64))
    return image


def rle8() -> bytes:
    """Two colours a row, the rows from the bottom up."""
    colours = [(200, 40, 30), (40, 160, 60), (30, 60, 180), (230, 230, 220)]
    rows = [bytes([48, 2, 48, 3, 0, 0])] * 32 + [bytes([48, 0, 48, 1, 0, 0])] * 32
    return bmp((96, 64), 8, b"".join(rows) + b"\0\1", compression=1, colours=colours)


def bmp565() -> bytes:
    red, green, blue = (np.asarray(band, np.uint16) for band in card().split())
    packed = (red >> 3 << 11 | green >> 2 << 5 | blue >> 3)[::-1]
    masks = struct.pack("<3I", 0xF800, 0x07E0, 0x001F)
    return bmp((96, 64), 16, packed.astype("<u2").tobytes(), compression=3, more=masks)


def planar_tiff() -> bytes:
    """Red, green and blue each in a strip of their own."""
    bands, end = b"".join(band.tobytes() for band in card().split()), tiff_end(10)
    tags = [(256, 4, 1, 96), (257, 4, 1, 64), (258, 3, 3, end), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 3, end + 8), (277, 3, 1, 3), (278, 4, 1, 64), (279, 4, 3, end + 8)]
    tags += [(284, 3, 1, 2)]
    strips = struct.pack("<3I", *(end + 20 + 6144 * band for band in range(3)))
    return tiff(tags, struct.pack("<4H", 8, 8, 8, 0) + strips + bands)


def frames(form: str, first: Image.Image | None = None, count: int = 3) -> bytes:
    others = [Image.new("RGB", (96, 64), (index % 256, 0, 0)) for index in range(1, count)]
    return encode_well(first or card(), form, save_all=True, append_images=others)


def many_frames_webp() -> bytes:
    animation = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return webp((96, 64), 2, animation + webp_frame(card()) * 20_000)
