"""Pillow, silent, and within bounds where only what is said beside the pixels would take its time.

Pillow parses comments, chunks and directories in Python, as many as there are: 32 MB of them would
take minutes and gigabytes, before a pixel is decoded.
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

from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, _imaging

__all__ = ["ExcessiveMetadata", "open_photo", "silent_pillow"]

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # An MPO opens as a JPEG.

# A PNG of 32 MB in chunks of 1 KB has half as many chunks, and is read half as many times.
_MOST_CHUNKS = 60_000
_MOST_READS = 200_000
# Of the numbers in a directory, which Python makes a hundred bytes each of. 32,000 strips fit.
_MOST_NUMBER_BYTES = 128 * 1024
_TYPES_OF_BYTES = (1, 2, 7)  # BYTE, ASCII and UNDEFINED (TIFF 6.0, section 2).
# A camera writes one EXIF block, and one for each picture that a file holds besides. Pillow joins
# them, which takes 9 seconds for 32 MB.
_MOST_EXIF_BLOCKS = 64
_MANY_EXIF_BYTES = _MOST_EXIF_BLOCKS * 65536


class ExcessiveMetadata(Exception):
    """More work beside the pixels than any photo asks for."""


class _CountedReads(BytesIO):
    """A photo's bytes, to be read so many times."""

    _left = _MOST_READS

    def read(self, size: int | None = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ExcessiveMetadata
        return super().read(size)


def open_photo(data: bytes) -> ImageFile.ImageFile | None:
    """Parse the header, as `Image.open` does, but without its own limit on pixels.

    Returns:
        The image, not decoded yet; None where the bytes are of no format in use here.

    Raises:
        ExcessiveMetadata: See there; decoding may raise it too.
        Exception: Any that Pillow raises for a broken header.
    """
    prefix = data[:16]
    for name in _FORMATS:
        factory, accept = Image.OPEN[name]
        if accept and accept(prefix) is True:  # A string says that Pillow was built without it.
            if name == "AVIF" and b"avi" not in data[8 : int.from_bytes(data[:4])]:
                return None  # A HEIC, or a video: no brand that the box lists is AVIF's.
            return factory(_CountedReads(_without_excess(name, data)), "")
    return None


def _without_excess(name: str, data: bytes) -> bytes:
    if name == "PNG":
        return _without_texts(data)
    if (
        name == "JPEG"
        and len(data) > _MANY_EXIF_BYTES
        and data.count(b"Exif\0\0") > _MOST_EXIF_BLOCKS
    ):
        raise ExcessiveMetadata
    return data


def _without_texts(data: bytes) -> bytes:
    """A PNG without texts that may be compressed: 0.1 MB of them would unpack to 64 MB."""
    view = memoryview(data)
    kept, begin, at, chunks = [], 0, 8, 0
    while at < len(data):
        chunks += 1
        if chunks > _MOST_CHUNKS:
            raise ExcessiveMetadata
        end = at + 12 + int.from_bytes(view[at : at + 4])
        if data[at + 4 : at + 8] in (b"zTXt", b"iTXt"):
            kept.append(view[begin:at])
            begin = end
        at = end
    return b"".join([*kept, view[begin:]]) if kept else data


# Pillow warns about what it can read all the same: a damaged EXIF block, a malformed MPO. In a
# batch of millions that is noise, and where warnings are errors the photo would be lost.
# `warnings.catch_warnings` changes the filters of every thread, and a filter installed here gives
# way to a later one. So the few modules of Pillow that warn get a `warnings` of their own, which
# is silent in a thread that is inside `silent_pillow` and passes everything on in any other.
_thread = threading.local()


@contextmanager
def silent_pillow() -> Iterator[None]:
    """Keep Pillow from warning, and from reading endless directories, in this thread."""
    _thread.silent = True
    try:
        yield
    finally:
        _thread.silent = False


def _is_silent() -> bool:
    return getattr(_thread, "silent", False)


def _warn(
    message: Warning | str, category: type[Warning] | None = None, stacklevel: int = 1
) -> None:
    if not _is_silent():
        warnings.warn(message, category, stacklevel + 1)


_load_directory = TiffImagePlugin.ImageFileDirectory_v2.load


def _load_bounded(directory: TiffImagePlugin.ImageFileDirectory_v2, file: IO[bytes]) -> None:
    """Load a directory of TIFF or EXIF, but in silence not the numbers that are too many."""
    _load_directory(directory, file)
    if not _is_silent():
        return
    left = _MOST_NUMBER_BYTES
    for tag, value in list(directory._tagdata.items()):
        if directory.tagtype[tag] not in _TYPES_OF_BYTES:
            left -= len(value)
            if left < 0:
                del directory._tagdata[tag]


Image.init()
for _module in (Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin):
    vars(_module)["warnings"] = SimpleNamespace(warn=_warn)
logging.getLogger(TiffImagePlugin.__name__).addFilter(lambda _: not _is_silent())
setattr(TiffImagePlugin.ImageFileDirectory_v2, "load", _load_bounded)  # noqa: B010 - mypy

# libtiff writes what it finds wrong to the standard error, and leaves it to Pillow to raise.
_set_error_handler = getattr(ctypes.CDLL(_imaging.__file__), "TIFFSetErrorHandler", None)
if _set_error_handler is not None:
    _set_error_handler(None)
