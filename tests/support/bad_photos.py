"""Bad photos: other content, damaged files, decompression bombs and other denial of service.

Each kind states its reject reason, or None if only the metadata is bad and the card is decoded.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np

from schemas.rejects import RejectReason
from tests.support.encoded_photos import encode
from tests.support.heic import HEICS
from tests.support.photo_parts import (
    MEBI,
    PNG_SIGNATURE,
    bmp,
    card,
    chunk,
    exif,
    gif,
    grey_tiff,
    jpeg_of_scans,
    jpeg_with,
    png_header,
    png_with,
    riff,
    segment,
    tiff_end,
    webp,
)

NOT_AN_IMAGE, TOO_LARGE = RejectReason.NOT_AN_IMAGE, RejectReason.TOO_LARGE
TRUNCATED, UNREADABLE = RejectReason.TRUNCATED, RejectReason.UNREADABLE

Bad = tuple[Callable[[], bytes], RejectReason | None]


def zip_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("photo.jpg", encode(card(), "JPEG"))
    return buffer.getvalue()


def ftyp(brand: bytes, *others: bytes) -> bytes:
    body = brand + bytes(4) + b"".join(others)
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body + bytes(100)


# Headers that state a huge size


def png_of(size: tuple[int, int]) -> bytes:
    return png_header(size) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND")


def jpeg_of(size: tuple[int, int]) -> bytes:
    data = bytearray(encode(card(), "JPEG"))
    frame = data.index(b"\xff\xc0") + 5
    data[frame : frame + 4] = struct.pack(">2H", *reversed(size))
    return bytes(data)


def lossless_webp_of(size: tuple[int, int]) -> bytes:
    data = bytearray(encode(card(), "WEBP", lossless=True))
    data[21:25] = struct.pack("<I", size[0] - 1 | (size[1] - 1) << 14)
    return bytes(data)


def lossy_webp_of(size: tuple[int, int]) -> bytes:
    data = bytearray(encode(card(), "WEBP"))
    data[26:30] = struct.pack("<2H", *size)
    return bytes(data)


def avif_of(size: tuple[int, int]) -> bytes:
    data = bytearray(encode(card(), "AVIF"))
    box = data.index(b"ispe") + 8
    data[box : box + 8] = struct.pack(">2I", *size)
    return bytes(data)


def heic_of(size: tuple[int, int]) -> bytes:
    data = bytearray(HEICS["card.heic"])
    box = data.index(b"ispe") + 8
    data[box : box + 8] = struct.pack(">2I", *size)
    return bytes(data)


def huge_frame() -> bytes:
    """A GIF whose first frame is larger than its screen, so that Pillow raises on opening it."""
    data = bytearray(encode(card(), "GIF"))
    frame = data.index(b",\0\0\0\0") + 5
    data[frame : frame + 4] = b"\xff" * 4
    return bytes(data)


# Metadata


def text_bomb(name: bytes) -> bytes:
    """63 compressed texts of a megabyte each, in 0.1 MB."""
    packed = zlib.compress(bytes(MEBI - 100), 9)
    between = b"\0\0" if name == b"zTXt" else b"\0\1\0\0\0"
    return png_with(b"".join(chunk(name, b"%d" % i + between + packed) for i in range(63)))


def exif_bomb(count: int, size: int) -> bytes:
    """All entries point at the same bytes, the start of the block."""
    entries = b"".join(struct.pack(">2H2I", 1 + i, 1, size, 0) for i in range(count))
    return exif(entries, count, bytes(max(0, size - len(entries))))


def array_as_orientation() -> bytes:
    """A PNG whose EXIF orientation is an array of a million rationals."""
    block = exif(struct.pack(">2H2I", 0x112, 5, 1_000_000, 26), 1, bytes(8_000_000))
    return png_with(chunk(b"eXIf", block[6:]))


def many_exif_blocks() -> bytes:
    return jpeg_with(segment(0xE1, exif(b"", 0, bytes(65_000))) * 400)


# Excessive work


def overlapping_strips(count: int) -> bytes:
    """Every strip covers the same bytes, half of the image."""
    side, end = 2000, tiff_end(8)
    strips = struct.pack("<I", end) * count
    return grey_tiff((side, side), (count, end), side // 2, strips + bytes(side * side))


def many_strips() -> bytes:
    """Four million strips for 100 rows."""
    return grey_tiff((100, 100), (4_000_000, tiff_end(8)), 1, bytes(16_000_000))


def many_tags() -> bytes:
    """30,000 tags that all point at the same bytes."""
    count = 30_000
    tags = [(tag, 1, 500, 8) for tag in range(35_000, 35_000 + count)]
    return grey_tiff((10, 10), (1, tiff_end(8 + count)), 10, bytes(MEBI), tags)


def rationals_tiff() -> bytes:
    """A resolution that is an array of a million rationals."""
    end = tiff_end(9)
    return grey_tiff((10, 10), (1, end), 10, bytes(8_000_000), [(282, 5, 1_000_000, end)])


def one_pixel_rows() -> bytes:
    """Run-length encoded: each row of 10,000 ends after one pixel."""
    return bmp((10_000, 10_000), 8, b"\1\7\0\0" * 10_000, compression=1, colours=[(0, 0, 0)] * 8)


def one_byte_chunks() -> bytes:
    """A PNG with one byte of its pixels in each chunk."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 601), np.uint8)
    noise[:, 0] = 0
    stored = zlib.compress(noise.tobytes(), 0)
    pieces = b"".join(chunk(b"IDAT", stored[i : i + 1]) for i in range(len(stored)))
    return png_header((600, 600), colour=0) + pieces + chunk(b"IEND")


def flipped_crc() -> bytes:
    data = bytearray(encode(card(), "PNG"))
    data[data.index(b"IDAT") + 20] ^= 1
    return bytes(data)


def damaged_lzw() -> bytes:
    data = encode(card(), "TIFF", compression="tiff_lzw")
    return data[:20] + b"\xff" * 200 + data[220:]


def without_quantisation_tables() -> bytes:
    data = encode(card(), "JPEG")
    start = data.index(b"\xff\xdb")
    return data[:start] + data[data.index(b"\xff\xc0") :]


def webp_pixels() -> bytes:
    return encode(card(), "WEBP", lossless=True)[12:]


def photo(form: str, **options: object) -> bytes:
    return encode(card(), form, **options)


BAD_PHOTOS: dict[str, Bad] = {
    # Other content named .jpg
    "html.jpg": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", NOT_AN_IMAGE),
    "pdf.jpg": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", NOT_AN_IMAGE),
    "zip.jpg": (zip_archive, NOT_AN_IMAGE),
    "eps.jpg": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", NOT_AN_IMAGE),
    "wave.jpg": (lambda: b"RIFF\x04\0\0\0WAVE", NOT_AN_IMAGE),
    "ppm.jpg": (partial(photo, "PPM"), NOT_AN_IMAGE),
    "svg.jpg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', NOT_AN_IMAGE),
    "pickle.jpg": (lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.", NOT_AN_IMAGE),
    "mif1.jpg": (partial(ftyp, b"mif1", b"mif1miaf"), NOT_AN_IMAGE),
    "video.jpg": (partial(ftyp, b"mp42", b"isommp42"), NOT_AN_IMAGE),
    "empty-box.jpg": (lambda: bytes(4) + b"ftyp", NOT_AN_IMAGE),
    "jpeg-xl.jpg": (lambda: b"\xff\x0a" + bytes(100), NOT_AN_IMAGE),
    "jpeg-2000.jpg": (partial(photo, "JPEG2000"), NOT_AN_IMAGE),
    "icon.jpg": (partial(photo, "ICO"), NOT_AN_IMAGE),
    "text-before-a-photo.jpg": (lambda: b"x" + encode(card(), "JPEG"), NOT_AN_IMAGE),
    "one-byte.jpg": (lambda: b"x", NOT_AN_IMAGE),
    "zeros.jpg": (lambda: bytes(5000), NOT_AN_IMAGE),
    "empty.jpg": (lambda: b"", RejectReason.EMPTY_FILE),
    "signature-only.png": (lambda: PNG_SIGNATURE, TRUNCATED),
    "signature-only.jpg": (lambda: b"\xff\xd8\xff", UNREADABLE),
    # Damaged
    "half.jpg": (lambda: encode(card(), "JPEG")[:-600], TRUNCATED),
    "half.png": (lambda: encode(card(), "PNG")[:-60], TRUNCATED),
    "half.webp": (lambda: encode(card(), "WEBP")[:-100], TRUNCATED),
    "half.gif": (lambda: encode(card(), "GIF")[:-100], TRUNCATED),
    "checksum.png": (flipped_crc, UNREADABLE),
    "damaged-lzw.tiff": (damaged_lzw, UNREADABLE),
    "no-tables.jpg": (without_quantisation_tables, UNREADABLE),
    "no-palette.png": (
        lambda: (
            png_header((8, 8), colour=3) + chunk(b"IDAT", zlib.compress(bytes(72))) + chunk(b"IEND")
        ),
        UNREADABLE,
    ),
    "no-frame.webp": (lambda: webp((96, 64), 2, b""), UNREADABLE),
    "jpeg-in.bmp": (
        lambda: bmp((96, 64), 0, encode(card(), "JPEG"), compression=4),
        UNREADABLE,
    ),
    "12-bit.jpg": (
        lambda: encode(card(), "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
        UNREADABLE,
    ),
    "zeros.heic": (partial(ftyp, b"heic", b"mif1heic"), UNREADABLE),
    "half.heic": (lambda: HEICS["card.heic"][:-60], TRUNCATED),
    "no-picture.heic": (lambda: HEICS["card.heic"].replace(b"hvc1", b"junk"), UNREADABLE),
    # Over the limits by the size in the header
    "10001x10001.png": (partial(png_of, (10_001, 10_001)), TOO_LARGE),
    "60000x60000.png": (partial(png_of, (60_000, 60_000)), TOO_LARGE),
    "65000x65000.jpg": (partial(jpeg_of, (65_000, 65_000)), TOO_LARGE),
    "16383x16383.webp": (partial(lossless_webp_of, (16_383, 16_383)), TOO_LARGE),
    "16383x16383-lossy.webp": (partial(lossy_webp_of, (16_383, 16_383)), TOO_LARGE),
    "16000000x9.webp": (lambda: webp((16_000_000, 9), 0, b""), TOO_LARGE),
    "16000x16000.avif": (partial(avif_of, (16_000, 16_000)), TOO_LARGE),
    "16000x16000.heic": (partial(heic_of, (16_000, 16_000)), TOO_LARGE),
    "60000x60000.gif": (lambda: gif(card().quantize(4), (60_000, 60_000), (0, 0), b""), TOO_LARGE),
    "65535x65535-frame.gif": (huge_frame, TOO_LARGE),
    "60000x60000.bmp": (lambda: bmp((60_000, 60_000), 24, bytes(100)), TOO_LARGE),
    "60000x60000.tiff": (lambda: grey_tiff((60_000, 60_000), (1, 8), 60_000, b""), TOO_LARGE),
    "0x64.png": (partial(png_of, (0, 64)), UNREADABLE),
    # Metadata
    "compressed-texts.png": (partial(text_bomb, b"zTXt"), None),
    "compressed-international-texts.png": (partial(text_bomb, b"iTXt"), None),
    "compressed-profile.png": (
        lambda: png_with(chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(30 * MEBI)))),
        TOO_LARGE,
    ),
    "million-texts.png": (
        lambda: png_with(b"".join(chunk(b"tEXt", b"%d\0" % i) for i in range(1000)) * 1000),
        TOO_LARGE,
    ),
    "million-chunks.png": (lambda: png_with(b"", chunk(b"prVt") * 1_000_000), TOO_LARGE),
    "one-byte-chunks.png": (one_byte_chunks, TOO_LARGE),
    "four-million-comments.jpg": (lambda: jpeg_with(segment(0xFE) * 4_000_000), TOO_LARGE),
    "junk-before-pixels.jpg": (lambda: jpeg_with(segment(0xFE) + bytes(8 * MEBI)), TOO_LARGE),
    "four-million-extensions.gif": (
        lambda: gif(card().quantize(4), (96, 64), (0, 0), b"!\xfe\0" * 4_000_000),
        TOO_LARGE,
    ),
    "long-comment.gif": (
        lambda: gif(card().quantize(4), (96, 64), (0, 0), b"!\xfe" + b"\1a" * 4_000_000 + b"\0"),
        TOO_LARGE,
    ),
    "three-million-chunks.webp": (
        lambda: webp((96, 64), 0, webp_pixels() + riff(b"JUNK", b"") * 3_000_000),
        None,
    ),
    "exif-bomb.jpg": (lambda: jpeg_with(segment(0xE1, exif_bomb(5_000, 65_000))), None),
    "exif-bomb.png": (lambda: png_with(chunk(b"eXIf", exif_bomb(60_000, 20 * MEBI)[6:])), None),
    "rationals-exif.png": (array_as_orientation, None),
    "400-exif-blocks.jpg": (many_exif_blocks, TOO_LARGE),
    "index-bomb.mpo": (
        lambda: jpeg_with(segment(0xE2, b"MPF\0" + exif_bomb(5_000, 65_000)[6:])),
        None,
    ),
    # Excessive work
    "1000-scans.jpg": (partial(jpeg_of_scans, (3000, 2000), 1000), TOO_LARGE),
    "100000-scans.jpg": (partial(jpeg_of_scans, (600, 400), 100_000), TOO_LARGE),
    "overlapping-strips.tiff": (partial(overlapping_strips, 20_000), TOO_LARGE),
    "four-million-strips.tiff": (many_strips, UNREADABLE),
    "30000-tags.tiff": (many_tags, None),
    "rationals.tiff": (rationals_tiff, None),
    "one-pixel-rows.bmp": (one_pixel_rows, TOO_LARGE),
    "one-pixel-runs.bmp": (
        lambda: bmp((1500, 1500), 8, b"\1\7" * 2_250_000, compression=1, colours=[(0, 0, 0)] * 8),
        TOO_LARGE,
    ),
}
