"""Assemble photos byte by byte, to write files that no encoder does."""

import struct
import zlib
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw

from tests.support.encoded_photos import encode

MEBI = 1 << 20
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def card(mode: str = "RGB") -> Image.Image:
    """Four quarters in four colours, so that a wrong orientation or wrong colours show."""
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
    """A PNG from raw rows; colour is 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGBA."""
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return png_header(size, depth, colour) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND")


def png_with(before: bytes, after: bytes = b"") -> bytes:
    """The card with extra chunks before and after its pixels."""
    plain = encode(card(), "PNG")
    return plain[:33] + before + plain[33:-12] + after + plain[-12:]


# JPEG (ITU-T T.81)


def segment(marker: int, body: bytes = b"") -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg_with(segments: bytes, **options: object) -> bytes:
    """The card with extra segments before all others."""
    plain = encode(card(), "JPEG", **{"quality": 95, "subsampling": 0, **options})
    return plain[:2] + segments + plain[2:]


def exif(entries: bytes, count: int, after: bytes = b"") -> bytes:
    """An EXIF block with one directory, big-endian."""
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", count) + entries + bytes(4) + after


def jpeg_of_scans(size: tuple[int, int], scans: int) -> bytes:
    """A progressive JPEG whose last scan, which refines one component, is repeated."""
    plain = encode(Image.new("RGB", size, "grey"), "JPEG", progressive=True, subsampling=0)
    last = plain[plain.rindex(b"\xff\xc4") : -2]  # Starting with its Huffman table.
    return plain[:-2] + last * scans + b"\xff\xd9"


# GIF (89a)


def gif(frame: Image.Image, screen: tuple[int, int], at: tuple[int, int], extra: bytes) -> bytes:
    """A GIF with its frame at a position on a larger screen, after extra extensions."""
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
    """A Windows 3 BMP from stored rows; `more` follows the 40-byte header."""
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
    """One directory of (tag, type, count, value or offset), followed by `after`."""
    entries = b"".join(struct.pack(f"{order}2H2I", *tag) for tag in tags)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + after


def tiff_end(count: int) -> int:
    """Offset of the first byte after a directory of `count` entries."""
    return 8 + 2 + 12 * count + 4


def grey_tiff(
    size: tuple[int, int],
    strips: tuple[int, int],
    rows: int,
    after: bytes,
    more: Sequence[tuple[int, int, int, int]] = (),
) -> bytes:
    """An uncompressed greyscale TIFF; strips are (count, value or offset)."""
    tags = [(256, 4, 1, size[0]), (257, 4, 1, size[1]), (258, 3, 1, 8), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 1), (273, 4, *strips), (277, 3, 1, 1), (278, 4, 1, rows), *more]
    return tiff(tags, after)


# WebP (RIFF)


def riff(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def webp(size: tuple[int, int], flags: int, chunks: bytes) -> bytes:
    """An extended WebP from chunks."""
    canvas = b"".join((side - 1).to_bytes(3, "little") for side in size)
    return riff(b"RIFF", b"WEBP" + riff(b"VP8X", bytes([flags, 0, 0, 0]) + canvas) + chunks)


def webp_frame(image: Image.Image) -> bytes:
    """A lossless animation frame at the top left."""
    size = b"".join((side - 1).to_bytes(3, "little") for side in image.size)
    return riff(
        b"ANMF", bytes(6) + size + b"\x64\0\0\0" + encode(image, "WEBP", lossless=True)[12:]
    )
