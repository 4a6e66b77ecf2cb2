"""Reading a photo's bytes from an address, and decoding them into an upright RGB image.

Nothing here raises for a bad photo but `PhotoRejected`, whose reason is one of the closed set in
`schemas.rejects`. Both functions may run in any number of threads at once; Pillow releases the
interpreter lock while it decodes.
"""

import logging
import re
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import fsspec
import numpy as np
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from schemas.rejects import RejectReason

__all__ = ["PhotoLimits", "PhotoRejected", "decode_photo", "read_photo"]

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # An MPO opens as a JPEG.
_HTTP_TIMEOUT_S = 60.0
_LOCAL_URI = re.compile(r"(?:file|local):(?://(?:localhost)?)?(/.*)", re.IGNORECASE | re.DOTALL)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)

# What makes a photo upright, by the value of its EXIF tag Orientation (EXIF 2.3, section 4.6.4).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# The value that is white in a mode deeper than eight bits: the first one that no pixel exceeds.
_WHITE_LEVELS: dict[str, tuple[float, ...]] = {
    "I;16": (65535,),
    "I;16L": (65535,),
    "I;16B": (65535,),
    "I;16N": (65535,),
    "I": (65535, 2**31 - 1),
    "F": (1, 255, 65535),
}


@dataclass(frozen=True)
class PhotoLimits:
    """How large a photo may be.

    Attributes:
        max_bytes: Size of the encoded photo, in bytes.
        max_pixels: Width times height, as the header states them. Decoding takes up to 12 bytes of
            memory for each pixel, 20 for WebP, and for a JPEG those of the reduced scale.
    """

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 100_000_000


class PhotoRejected(Exception):
    """A photo that cannot be used.

    Attributes:
        reason: Why, from the closed set; what raised it, if anything, is the `__cause__`.
    """

    def __init__(self, reason: RejectReason) -> None:
        super().__init__(reason)
        self.reason = reason


def read_photo(uri: str, limits: PhotoLimits) -> bytes:
    """Read the bytes of a photo, at most one more than the limit.

    Credentials, endpoints and proxies of a remote store come from its driver's defaults and from
    fsspec's own configuration.

    Args:
        uri: A path, taken literally (`%` and spaces too); a `file:` URI, percent-decoded; or an
            address whose scheme fsspec knows and has a driver for (`s3://`, `hdfs://`, `https://`).
        limits: `max_bytes` is the one that counts here.

    Returns:
        The bytes as stored; they may be none, or of no image.

    Raises:
        PhotoRejected: `UNSUPPORTED_SCHEME`: no driver. `NOT_FOUND`: nothing there, or locally
            something other than a regular file. `TOO_LARGE`. `READ_FAILED`: anything else.
    """
    try:
        data = _read(uri, limits.max_bytes + 1)
    except PhotoRejected:
        raise
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise PhotoRejected(RejectReason.NOT_FOUND) from error
    except Exception as error:
        raise PhotoRejected(RejectReason.READ_FAILED) from error
    if len(data) > limits.max_bytes:
        raise PhotoRejected(RejectReason.TOO_LARGE)
    return data


def _read(uri: str, count: int) -> bytes:
    """The first `count` bytes at `uri`, or all where there are fewer."""
    if local := _LOCAL_URI.fullmatch(uri):
        return _read_local(unquote(local[1], errors="surrogateescape"), count)
    if remote := _SCHEME.match(uri):
        return _read_remote(remote[1].lower(), uri, count)
    return _read_local(uri, count)


def _read_local(name: str, count: int) -> bytes:
    path = Path(name)
    # Opening a FIFO would wait for a writer. No name of a file has a NUL in it.
    if "\0" in name or not stat.S_ISREG(path.stat().st_mode):
        raise PhotoRejected(RejectReason.NOT_FOUND)
    with path.open("rb") as file:
        return file.read(count)


def _read_remote(scheme: str, uri: str, count: int) -> bytes:
    """One request, and never more than `count` bytes kept."""
    if scheme in ("file", "local"):  # `file://host/path`, and `file://` without a path.
        raise PhotoRejected(RejectReason.NOT_FOUND)
    try:
        driver = fsspec.get_filesystem_class(scheme)
        # Not `fsspec.open`: it takes a `::` anywhere in an address for a chain of file systems.
        store = driver(**driver._get_kwargs_from_urls(uri))
    except (ImportError, TypeError, ValueError) as error:
        raise PhotoRejected(RejectReason.UNSUPPORTED_SCHEME) from error
    if scheme not in ("http", "https"):
        data: bytes = store.cat_file(driver._strip_protocol(uri), start=0, end=count)
        return data
    # A web server may ignore a byte range, so read a stream. A block size of 0 asks for one, and a
    # size spares the request for it, whose every failure fsspec reports as "not found".
    parts: list[bytes] = []
    with store.open(uri, "rb", block_size=0, size=1, timeout=_HTTP_TIMEOUT_S) as stream:
        while count > 0 and (part := stream.read(count)):
            parts.append(part)
            count -= len(part)
    return b"".join(parts)


def decode_photo(data: bytes, short_side: int, limits: PhotoLimits) -> Image.Image:
    """Decode a photo: JPEG (MPO too), PNG, WebP, GIF, BMP, TIFF or AVIF, by content.

    A JPEG is decoded at 1/2, 1/4 or 1/8 scale where that leaves at least `short_side` pixels on the
    short side: libjpeg then skips most of the inverse cosine transform. Of an animation or a file
    of several pages, the first is taken. Transparent parts become white. Greyscale of 16 bits is
    divided by 257; of 32 bits (integer or floating point), by the first of the usual white levels
    that holds its brightest pixel. Colour profiles are left alone. A broken EXIF block leaves the
    photo as it is stored.

    Args:
        data: The encoded photo.
        short_side: Pixels the short side should have at least; a smaller photo is not enlarged.
        limits: Checked against the bytes and the header, before a pixel is decoded.

    Returns:
        An upright image of mode RGB.

    Raises:
        PhotoRejected: `EMPTY_FILE`, `NOT_AN_IMAGE`, `TOO_LARGE`, `TRUNCATED`, or `UNREADABLE` for
            anything else, which includes an early end that cannot be told from corruption.
    """
    if not data:
        raise PhotoRejected(RejectReason.EMPTY_FILE)
    if len(data) > limits.max_bytes:
        raise PhotoRejected(RejectReason.TOO_LARGE)
    try:
        with _silent_pillow():
            image = _open(data)
            if image.width * image.height > limits.max_pixels:
                raise PhotoRejected(RejectReason.TOO_LARGE)
            image.draft(None, (short_side, short_side))
            image.load()
            transpose = _UPRIGHT.get(_orientation(image))
            rgb = _to_rgb(image)
            return rgb if transpose is None else rgb.transpose(transpose)
    except PhotoRejected:
        raise
    except Exception as error:
        raise PhotoRejected(_reason(error, data)) from error


def _open(data: bytes) -> ImageFile.ImageFile:
    """Parse the header, as `Image.open` does, but without its own limit on pixels."""
    prefix = data[:16]
    for name in _FORMATS:
        factory, accept = Image.OPEN[name]
        if accept and accept(prefix) is True:  # A string says that Pillow was built without it.
            return factory(BytesIO(data), "")
    raise PhotoRejected(RejectReason.NOT_AN_IMAGE)


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation; 1, upright, where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises a dozen kinds of error for broken EXIF.
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _WHITE_LEVELS:
        image = _to_8_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    opaque = Image.new("RGB", image.size, "white")
    opaque.paste(rgba, mask=rgba)
    return opaque


def _to_8_bits(image: Image.Image) -> Image.Image:
    values = np.array(image, dtype=np.float32)
    np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    peak = values.max()
    white = next((level for level in _WHITE_LEVELS[image.mode] if peak <= level), peak)
    np.clip(values, 0, white, out=values)
    values *= 255 / white
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8))


def _reason(error: BaseException, data: bytes) -> RejectReason:
    if isinstance(error, Image.DecompressionBombError):
        return RejectReason.TOO_LARGE
    # Pillow wraps what its parsers of headers raise at the end of the data in a SyntaxError.
    at_end = isinstance(error.__cause__, EOFError | IndexError | struct.error)
    riff_too_short = data.startswith(b"RIFF") and int.from_bytes(data[4:8], "little") > len(data)
    if at_end or riff_too_short or "truncated" in str(error).lower():
        return RejectReason.TRUNCATED
    return RejectReason.UNREADABLE


# Pillow warns about what it can read all the same: a damaged EXIF block, a malformed MPO. In a
# batch of millions that is noise, and where warnings are errors the photo would be lost.
# `warnings.catch_warnings` changes the filters of every thread, and a filter installed here gives
# way to a later one. So the few modules of Pillow that warn get a `warnings` of their own, which
# is silent in a thread that is inside `decode_photo` and passes everything on in any other.
_thread = threading.local()


@contextmanager
def _silent_pillow() -> Iterator[None]:
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


Image.init()
for _module in (Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin):
    vars(_module)["warnings"] = SimpleNamespace(warn=_warn)
logging.getLogger(TiffImagePlugin.__name__).addFilter(lambda _: not _is_silent())
