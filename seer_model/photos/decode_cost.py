"""Estimate what decoding a photo costs, from its header: peak memory, and passes over its pixels.

The estimates are upper bounds, measured with Pillow; `tests/unit/photos/test_decode_cost.py`
checks them.
"""

import re
from collections.abc import Sequence

from PIL import ImageFile, JpegImagePlugin, TiffImagePlugin

__all__ = ["DecodeCost", "webp_memory", "webp_size"]

# Bytes a decoded pixel: the image as Pillow stores it (4 bytes a pixel in most modes), and the
# copies made on the way to an upright RGB image.
_BYTES_OF_MODE = {
    "1": 9,  # 1, then 4 as RGBA and 4 on white.
    "L": 9,
    "P": 9,
    "I;16": 12,  # 2, then 4 as floating point, with masks and copies of that.
    "I;16L": 12,
    "I;16B": 12,
    "I;16N": 12,
    "I": 14,  # The same, from 4.
    "F": 14,
}
_OPAQUE_BYTES = 8  # 4, and 4 as RGB.
_TRANSPARENT_BYTES = 12  # 4, then 4 as RGBA and 4 on white.
_BYTES_OF_FORMAT = {  # Added for the buffers of the decoder.
    "AVIF": 10,  # Planes of up to 12 bits, their RGB, and Pillow's copy of that.
    "HEIF": 10,  # The same.
    "TIFF": 8,  # A strip, or a tile (possibly larger than the image), at 16 bits a sample.
}
_WEBP_BYTES = 20  # 12 as for RGBA, and the current and previous canvas of an animation.
_METADATA_COPIES = 2  # Times the whole file, as all of it may be comments.
_EXIF_COPIES = 3  # On top of those.
_WEBP_METADATA_COPIES = 7  # libwebp lists the chunks, which can be as short as 8 bytes.
_FIXED_BYTES = 4 << 20  # Rows and tables of the decoder, and the square that is cut out.

_TILE_SIZE_TAGS = (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)
# The start of a scan of one to four components, their number last (ITU-T T.81, B.2.3).
_SCAN = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
# Pillow unpacks a run-length encoded BMP in Python, as slowly as this many passes in C.
_RLE_PASSES = 200


class DecodeCost:
    """The cost of decoding a photo of any format but WebP.

    Args:
        image: The photo, opened but not decoded, at the scale to decode at.
        full_size: Width and height at full scale, in pixels.
        data: The encoded photo. Other JPEGs inside it, such as a preview, count too.
    """

    def __init__(self, image: ImageFile.ImageFile, full_size: tuple[int, int], data: bytes) -> None:
        self._image = image
        self._full_size = full_size
        self._data = data
        self._jpeg = image if isinstance(image, JpegImagePlugin.JpegImageFile) else None
        # The number of components in each scan of a JPEG.
        self._scans: Sequence[int] = (
            bytes(match[0][-1] for match in _SCAN.finditer(data)) if self._jpeg else b""
        )

    def pixel_passes(self) -> int:
        """Pixels that decoding visits, each counted as often as it is visited."""
        if self._scans:
            return self._full_size[0] * self._full_size[1] * len(self._scans)
        count = 0
        for tile in self._image.tile:  # The tiles of a TIFF may overlap.
            left, top, right, bottom = tile.extents or (0, 0, *self._image.size)
            passes = _RLE_PASSES if tile.codec_name == "bmp_rle" else 1
            count += abs((right - left) * (bottom - top)) * passes
        return count or self._full_size[0] * self._full_size[1]

    def peak_memory(self) -> int:
        """Peak memory of decoding in bytes, without the encoded photo itself."""
        image = self._image
        pixels = buffered = image.width * image.height
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            tile_width, tile_height = (image.tag_v2.get(tag, 0) for tag in _TILE_SIZE_TAGS)
            buffered = max(pixels, tile_width * tile_height)
        of_mode = _TRANSPARENT_BYTES if image.has_transparency_data else _OPAQUE_BYTES
        return (
            _FIXED_BYTES
            + _METADATA_COPIES * len(self._data)
            + _EXIF_COPIES * len(image.info.get("exif") or b"")
            + pixels * _BYTES_OF_MODE.get(image.mode, of_mode)
            + buffered * _BYTES_OF_FORMAT.get(image.format or "", 0)
            + self._coefficient_bytes()
        )

    def _coefficient_bytes(self) -> int:
        """What libjpeg buffers of a JPEG in several scans: all coefficients, at full scale."""
        jpeg = self._jpeg
        if jpeg is None:
            return 0
        # A baseline JPEG has several scans if one of them lacks a component.
        if "progressive" not in jpeg.info and all(count >= jpeg.layers for count in self._scans):
            return 0
        samplings = [across * down for _, across, down, _ in jpeg.layer]
        width, height = self._full_size
        padded = (width + 32) * (height + 32)  # Up to whole blocks of each component.
        return 2 * padded * sum(samplings) // max(samplings)


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP in pixels, from its header; None for another format."""
    if data[:4] + data[8:12] != b"RIFFWEBP":
        return None
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    bits = int.from_bytes(data[26:30], "little")
    return bits & 0x3FFF, bits >> 16 & 0x3FFF


def webp_memory(size: tuple[int, int], data: bytes) -> int:
    """Peak memory of opening and decoding a WebP of a given size, in bytes."""
    return _FIXED_BYTES + _WEBP_METADATA_COPIES * len(data) + size[0] * size[1] * _WEBP_BYTES
