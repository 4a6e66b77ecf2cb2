"""How much memory and work Pillow takes to decode a photo, by its header."""

import ctypes
import re
from collections.abc import Callable, Sequence

from PIL import ImageFile, JpegImagePlugin, TiffImagePlugin

__all__ = [
    "let_go",
    "memory_to_decode",
    "memory_to_decode_webp",
    "pixels_to_decode",
    "scans_of",
    "webp_size",
]

# Bytes for each pixel that is decoded, as measured: the image as Pillow keeps it (4 bytes a pixel
# in most modes) and the copies on its way to an upright RGB image.
_BYTES_OF_MODE = {
    "1": 9,  # 1, then 4 as RGBA and 4 on white.
    "L": 9,
    "P": 9,
    "I;16": 12,  # 2, then 4 as floating point, and masks and copies of that.
    "I;16L": 12,
    "I;16B": 12,
    "I;16N": 12,
    "I": 14,  # As above, from 4.
    "F": 14,
}
_OPAQUE_BYTES = 8  # 4, and 4 as RGB.
_TRANSPARENT_BYTES = 12  # 4, then 4 as RGBA and 4 on white.
_BYTES_OF_FORMAT = {  # Besides those of the mode: what the decoder keeps.
    "AVIF": 10,  # Planes of up to 12 bits, the RGB made of them, and Pillow's copy of that.
    "TIFF": 8,  # A strip, or a tile (which may be larger than the image), at 16 bits a sample.
}
_WEBP_BYTES = 20  # 12 as of RGBA, the canvas of an animation, and the one before.
_METADATA_COPIES = 2  # Times all bytes, were all of a file comments.
_EXIF_COPIES = 3  # Besides those.
_WEBP_METADATA_COPIES = 7  # The library lists the chunks, which may have 8 bytes each.
_FIXED_BYTES = 4 << 20  # Rows and tables of a decoder, and the square that `prepare_photo` makes.

# glibc keeps what a thread frees for what that thread asks for next: with eight threads, up to four
# times what is in use. Told to let go, it keeps about 16 MiB a thread. To forbid it all that for
# good, by its threshold for mmap, makes torch on a CPU take twice as long.
_LARGE_BYTES = 16 << 20
_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)


# The start of a scan of one to four components, their number last (ITU-T T.81, B.2.3).
_SCAN = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
# Pillow unpacks a run-length encoded BMP in Python, as slowly as this many passes in C.
_RLE_PASSES = 200


def scans_of(image: ImageFile.ImageFile, data: bytes) -> Sequence[int]:
    """How many components each scan of a JPEG has; nothing of another format.

    Args:
        image: The photo, opened.
        data: The encoded photo. What it holds of other JPEGs, such as a preview, counts too.
    """
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return b""
    return bytes(match[0][-1] for match in _SCAN.finditer(data))


def pixels_to_decode(
    image: ImageFile.ImageFile, full: tuple[int, int], scans: Sequence[int]
) -> int:
    """Pixels that decoding passes over, each as many times as it does.

    Args:
        image: The photo, opened.
        full: Its width and height, in pixels, at full scale.
        scans: As `scans_of` gives them.
    """
    if scans:
        return full[0] * full[1] * len(scans)
    count = 0
    for tile in image.tile:  # Those of a TIFF may lie on one another.
        left, top, right, bottom = tile.extents or (0, 0, *image.size)
        passes = _RLE_PASSES if tile.codec_name == "bmp_rle" else 1
        count += abs((right - left) * (bottom - top)) * passes
    return count


def memory_to_decode(
    image: ImageFile.ImageFile, full: tuple[int, int], data: bytes, scans: Sequence[int]
) -> int:
    """Bytes that decoding may take at its peak, the encoded photo itself not counted.

    Args:
        image: The photo, opened and at the scale at which it is going to be decoded.
        full: Its width and height, in pixels, at full scale.
        data: The encoded photo. Its metadata are copied when it is opened.
        scans: As `scans_of` gives them.
    """
    pixels = buffered = image.width * image.height
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tile = [image.tag_v2.get(tag, 0) for tag in _TILE_SIZE]
        buffered = max(pixels, tile[0] * tile[1])
    of_mode = _TRANSPARENT_BYTES if image.has_transparency_data else _OPAQUE_BYTES
    return (
        _FIXED_BYTES
        + _METADATA_COPIES * len(data)
        + _EXIF_COPIES * len(image.info.get("exif") or b"")
        + pixels * _BYTES_OF_MODE.get(image.mode, of_mode)
        + buffered * _BYTES_OF_FORMAT.get(image.format or "", 0)
        + _coefficient_bytes(image, full, scans)
    )


_TILE_SIZE = (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)


def _coefficient_bytes(
    image: ImageFile.ImageFile, full: tuple[int, int], scans: Sequence[int]
) -> int:
    """What libjpeg keeps of a photo in several scans: every coefficient, whatever the scale."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return 0
    # A scan may lack a component; a progressive photo of one has its own mark.
    if "progressive" not in image.info and all(count >= image.layers for count in scans):
        return 0
    samplings = [across * down for _, across, down, _ in image.layer]
    padded = (full[0] + 32) * (full[1] + 32)  # Up to whole blocks of each component.
    return 2 * padded * sum(samplings) // max(samplings)


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP, in pixels, or nothing for another format."""
    if data[:4] + data[8:12] != b"RIFFWEBP":
        return None
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    bits = int.from_bytes(data[26:30], "little")
    return bits & 0x3FFF, bits >> 16 & 0x3FFF


def memory_to_decode_webp(size: tuple[int, int], data: bytes) -> int:
    """As `memory_to_decode`, of a WebP that is not opened: that already makes its canvases."""
    return _FIXED_BYTES + _WEBP_METADATA_COPIES * len(data) + size[0] * size[1] * _WEBP_BYTES


def let_go(count: int) -> None:
    """Give `count` freed bytes, where they are many, back to the operating system."""
    if _trim is not None and count > _LARGE_BYTES:
        _trim(0)
