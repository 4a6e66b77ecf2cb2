"""Open photos with Pillow: without warnings, and with bounded work outside the pixels.

Pillow parses comments, chunks and directories in Python, however many there are: 32 MB of them
would take minutes and gigabytes before any pixel is decoded. Importing this module patches Pillow,
but only calls inside `quiet_pillow` behave differently.
"""

import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from types import SimpleNamespace
from typing import IO

import pi_heif
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, _imaging

__all__ = ["ExcessiveMetadata", "open_photo", "photo_format", "quiet_pillow"]

# An MPO opens as a JPEG.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
# What one of the brands in the `ftyp` box begins with: `avif`, `avis`; `heic`, `heix`, `hevc` …
# Other files with such a box are videos.
_BRANDS = {"AVIF": (b"avi",), "HEIF": (b"hei", b"hev")}

# A 32 MB PNG in chunks of 1 KB has half as many chunks, and takes half as many reads.
_MAX_CHUNKS = 60_000
_MAX_READS = 200_000
# Of the numbers in a directory; Python takes a hundred bytes for each. Enough for 32,000 strips.
_MAX_NUMBER_BYTES = 128 * 1024
_BYTE_TYPES = (1, 2, 7)  # BYTE, ASCII and UNDEFINED (TIFF 6.0, section 2).
# A camera writes one EXIF block for each picture in a file. Pillow concatenates them, which takes
# 9 seconds for 32 MB.
_MAX_EXIF_BLOCKS = 64
_MAX_EXIF_BYTES = _MAX_EXIF_BLOCKS * 65536


class ExcessiveMetadata(Exception):
    """A file has far more metadata than any real photo."""


def open_photo(data: bytes) -> ImageFile.ImageFile | None:
    """Parse the header, like `Image.open`, but without Pillow's global limit on pixels.

    `Image.open` also reports a broken header as an unknown format; here its error is raised.

    Returns:
        The image, not decoded yet; None if the format is not one of those accepted.

    Raises:
        ExcessiveMetadata: Also possible later, while the image is decoded.
        Exception: Whatever Pillow raises for a broken header.
    """
    name = photo_format(data)
    if name is None:
        return None
    factory, _ = Image.OPEN[name]
    return factory(_BoundedReads(_without_excess(name, data)), "")


def photo_format(data: bytes) -> str | None:
    """Pillow's name of the format, by the first bytes (256 are enough); None if not accepted."""
    prefix = data[:16]
    for name in _FORMATS:
        _, accept = Image.OPEN[name]
        if accept and accept(prefix) is True:  # A string: Pillow was built without this format.
            box = data[8 : int.from_bytes(data[:4])]
            if name not in _BRANDS or any(brand in box for brand in _BRANDS[name]):
                return name
    return None


class _BoundedReads(BytesIO):
    """A file in memory that may be read a bounded number of times."""

    _reads_left = _MAX_READS

    def read(self, size: int | None = -1) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise ExcessiveMetadata
        return super().read(size)


def _without_excess(name: str, data: bytes) -> bytes:
    if name == "PNG":
        return _without_compressed_texts(data)
    if (
        name == "JPEG"
        and len(data) > _MAX_EXIF_BYTES
        and data.count(b"Exif\0\0") > _MAX_EXIF_BLOCKS
    ):
        raise ExcessiveMetadata
    return data


def _without_compressed_texts(data: bytes) -> bytes:
    """A PNG without its compressed text chunks: 0.1 MB of them can expand to 64 MB."""
    view = memoryview(data)
    kept, begin, at, chunks = [], 0, 8, 0
    while at < len(data):
        chunks += 1
        if chunks > _MAX_CHUNKS:
            raise ExcessiveMetadata
        end = at + 12 + int.from_bytes(view[at : at + 4])
        if data[at + 4 : at + 8] in (b"zTXt", b"iTXt"):
            kept.append(view[begin:at])
            begin = end
        at = end
    return b"".join([*kept, view[begin:]]) if kept else data


# Pillow warns about defects that it tolerates, such as a damaged EXIF block or a malformed MPO. In
# a batch of millions that is noise, and if warnings are errors the photo is lost.
# `warnings.catch_warnings` is not thread-safe, and a filter installed here would yield to any
# later one. So the modules of Pillow that warn get a `warnings` of their own, which drops what is
# raised in a thread inside `quiet_pillow` and passes on everything else.
_thread = threading.local()


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """In this thread, silence Pillow's warnings and bound the size of its directories."""
    _thread.quiet = True
    try:
        yield
    finally:
        _thread.quiet = False


def _is_quiet() -> bool:
    return getattr(_thread, "quiet", False)


def _warn(
    message: Warning | str, category: type[Warning] | None = None, stacklevel: int = 1
) -> None:
    if not _is_quiet():
        warnings.warn(message, category, stacklevel + 1)


_load_directory = TiffImagePlugin.ImageFileDirectory_v2.load


def _load_bounded_directory(
    directory: TiffImagePlugin.ImageFileDirectory_v2, file: IO[bytes]
) -> None:
    """Load a TIFF or EXIF directory; if quiet, drop the numbers beyond the limit."""
    _load_directory(directory, file)
    if not _is_quiet():
        return
    left = _MAX_NUMBER_BYTES
    for tag, value in list(directory._tagdata.items()):
        if directory.tagtype[tag] not in _BYTE_TYPES:
            left -= len(value)
            if left < 0:
                del directory._tagdata[tag]


Image.init()
# On one thread, as there is a pool of threads that decode.
pi_heif.register_heif_opener(
    decode_threads=1, thumbnails=False, depth_images=False, aux_images=False
)
for _module in (Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin):
    vars(_module)["warnings"] = SimpleNamespace(warn=_warn)
logging.getLogger(TiffImagePlugin.__name__).addFilter(lambda _: not _is_quiet())
setattr(  # noqa: B010 - mypy rejects a plain assignment to a method
    TiffImagePlugin.ImageFileDirectory_v2, "load", _load_bounded_directory
)

# libtiff prints errors to stderr, and Pillow raises them anyway.
_set_error_handler = getattr(ctypes.CDLL(_imaging.__file__), "TIFFSetErrorHandler", None)
if _set_error_handler is not None:
    _set_error_handler(None)
