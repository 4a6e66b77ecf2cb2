"""Photos byte by byte: what no encoder writes, put together from the parts of each format."""

import struct
import zlib
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw

from tests.unit.encoded_photos import encode

MEBI = 1 << 20
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def card(mode: str = "RGB") -> Image.Image:
    """Four colours, another at each corner: what is read upside down or in wrong colours shows."""
    return _card().convert(mode)


@cache
def _card() -> Image.Image:
    image = Image.new("RGB", (96, 64), (230, 230, 220))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 47, 31), fill=(200, 40, 30))
    draw.rectangle((48, 0, 95, 31), fill=(40, 160, 60))
    draw.rectangle((0, 32, 47, 63), fill=(30, 60, 180))
    return image


# PNG (ISO/IEC 15948)


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_header(
    size: tuple[int, int], depth: int = 8, colour: int = 2, *, interlaced: bool = False
) -> bytes:
    return PNG_SIGNATURE + chunk(
        b"IHDR", struct.pack(">2I5B", *size, depth, colour, 0, 0, interlaced)
    )


def png(
    size: tuple[int, int], depth: int, colour: int, rows: Sequence[bytes], extra: bytes = b""
) -> bytes:
    """A PNG of given rows, colour being 0 grey, 2 RGB, 3 palette, 4 grey and 6 RGB with alpha."""
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return png_header(size, depth, colour) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND")


def png_with(before: bytes, after: bytes = b"") -> bytes:
    """The card, with chunks before and after its pixels."""
    plain = encode(card(), "PNG")
    return plain[:33] + before + plain[33:-12] + after + plain[-12:]


# JPEG (ITU-T T.81)


def segment(marker: int, body: bytes = b"") -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg_with(segments: bytes, **options: object) -> bytes:
    """The card, with segments before all others."""
    plain = encode(card(), "JPEG", **{"quality": 95, "subsampling": 0, **options})
    return plain[:2] + segments + plain[2:]


def exif(entries: bytes, count: int, after: bytes = b"") -> bytes:
    """A block of EXIF with one directory, big-endian."""
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", count) + entries + bytes(4) + after


def jpeg_of_scans(size: tuple[int, int], scans: int) -> bytes:
    """A progressive JPEG whose last scan, which refines one component, comes over and over."""
    plain = encode(Image.new("RGB", size, "grey"), "JPEG", progressive=True, subsampling=0)
    last = plain[plain.rindex(b"\xff\xc4") : -2]  # From its Huffman table on.
    return plain[:-2] + last * scans + b"\xff\xd9"


# GIF (89a)


def gif(frame: Image.Image, screen: tuple[int, int], at: tuple[int, int], extra: bytes) -> bytes:
    """A first frame somewhere on a screen, with extensions before it."""
    alone = encode(frame, "GIF")
    descriptor = alone.index(b",\0\0\0\0")
    head = alone[:6] + struct.pack("<2H", *screen) + alone[10:13]
    colours = alone[13 : 13 + 3 * (2 << (alone[10] & 7))]
    return head + colours + extra + b"," + struct.pack("<2H", *at) + alone[descriptor + 5 :]


# BMP


def bmp(
    size: tuple[int, int],
    bits: int,
    body: bytes,
    *,
    compression: int = 0,
    colours: Sequence[tuple[int, int, int]] = (),
    more: bytes = b"",
) -> bytes:
    """A BMP of Windows 3, its rows as they are stored; `more` follows the header of 40 bytes."""
    palette = b"".join(bytes([blue, green, red, 0]) for red, green, blue in colours)
    header = (
        struct.pack(
            "<I2i2H6I",
            40 + len(more),
            *size,
            1,
            bits,
            compression,
            len(body),
            0,
            0,
            len(colours),
            0,
        )
        + more
        + palette
    )
    start = 14 + len(header)
    return b"BM" + struct.pack("<I2HI", start + len(body), 0, 0, start) + header + body


# TIFF (6.0)


def tiff(tags: Sequence[tuple[int, int, int, int]], after: bytes = b"", order: str = "<") -> bytes:
    """One directory of (tag, type, count, value or offset), and what follows it."""
    entries = b"".join(struct.pack(f"{order}2H2I", *tag) for tag in tags)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + after


def tiff_end(count: int) -> int:
    """Where what follows a directory of so many entries begins."""
    return 8 + 2 + 12 * count + 4


def grey_tiff(
    size: tuple[int, int],
    strips: tuple[int, int],
    rows: int,
    after: bytes,
    more: Sequence[tuple[int, int, int, int]] = (),
) -> bytes:
    """Uncompressed grey; strips are (count, value or offset)."""
    tags = [(256, 4, 1, size[0]), (257, 4, 1, size[1]), (258, 3, 1, 8), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 1), (273, 4, *strips), (277, 3, 1, 1), (278, 4, 1, rows), *more]
    return tiff(tags, after)


# WebP (RIFF)


def riff(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def webp(size: tuple[int, int], flags: int, chunks: bytes) -> bytes:
    """An extended WebP of given chunks."""
    canvas = b"".join((side - 1).to_bytes(3, "little") for side in size)
    return riff(b"RIFF", b"WEBP" + riff(b"VP8X", bytes([flags, 0, 0, 0]) + canvas) + chunks)


def webp_frame(image: Image.Image) -> bytes:
    """A frame at the top left of an animation, without loss."""
    size = b"".join((side - 1).to_bytes(3, "little") for side in image.size)
    return riff(
        b"ANMF", bytes(6) + size + b"\x64\0\0\0" + encode(image, "WEBP", lossless=True)[12:]
    )
