"""Decoding a photo's bytes into an upright RGB image.

Nothing here raises for a bad photo but `PhotoRejected`, whose reason is one of the closed set in
`schemas.rejects`. It may run in any number of threads at once; Pillow releases the interpreter lock
while it decodes, and a `ByteBudget` bounds the memory that they take together.
"""

import logging
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from types import SimpleNamespace

import numpy as np
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from schemas.rejects import RejectReason
from seer_model.byte_budget import ByteBudget
from seer_model.decode_memory import let_go, memory_to_decode, memory_to_decode_webp, webp_size

__all__ = ["PhotoLimits", "PhotoRejected", "decode_photo", "decoded_photo"]

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # An MPO opens as a JPEG.

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
        max_pixels: Width times height, as the header states them.
        max_encoded_memory: Encoded bytes that photos on their way to the decoders may take
            together, in a task; one that is not read yet counts as `max_bytes`.
        max_decode_memory: Bytes of memory that photos being decoded at the same time may take
            together, in a process; a photo that needs more by itself is refused. A pixel counts as
            8 to 22 bytes, by format and mode; for a JPEG those of the reduced scale count, and
            where it is progressive 2 to 8 bytes more for each pixel of the full scale.
    """

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 100_000_000
    max_encoded_memory: int = 256 * 1024 * 1024
    max_decode_memory: int = 1024 * 1024 * 1024


class PhotoRejected(Exception):
    """A photo that cannot be used.

    Attributes:
        reason: Why, from the closed set; what raised it, if anything, is the `__cause__`.
    """

    def __init__(self, reason: RejectReason) -> None:
        super().__init__(reason)
        self.reason = reason


def decode_photo(
    data: bytes, short_side: int, limits: PhotoLimits, memory: ByteBudget | None = None
) -> Image.Image:
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
        memory: What other threads decode from too. As many bytes as decoding may take, by the
            header, are held while it runs, and waited for before a pixel is decoded.

    Returns:
        An upright image of mode RGB.

    Raises:
        PhotoRejected: `EMPTY_FILE`, `NOT_AN_IMAGE`, `TOO_LARGE`, `TRUNCATED`, or `UNREADABLE` for
            anything else, which includes an early end that cannot be told from corruption.
    """
    with decoded_photo(data, short_side, limits, memory) as image:
        return image


@contextmanager
def decoded_photo(
    data: bytes, short_side: int, limits: PhotoLimits, memory: ByteBudget | None
) -> Iterator[Image.Image]:
    """As `decode_photo`, but the memory is held until the block ends."""
    if not data:
        raise PhotoRejected(RejectReason.EMPTY_FILE)
    if len(data) > limits.max_bytes:
        raise PhotoRejected(RejectReason.TOO_LARGE)
    with ExitStack() as held:

        def reserve(count: int) -> None:
            if count > limits.max_decode_memory:
                raise PhotoRejected(RejectReason.TOO_LARGE)
            if memory is not None:
                held.enter_context(memory.hold(count))
            held.callback(let_go, count)

        try:
            with _silent_pillow():
                image: Image.Image = _open_within(limits, data, short_side, reserve)
                image.load()
                transpose = _UPRIGHT.get(_orientation(image))
                image = _to_rgb(image)  # Frees what was decoded, before there is a third copy.
                if transpose is not None:
                    image = image.transpose(transpose)
        except PhotoRejected:
            raise
        except Exception as error:
            raise PhotoRejected(_reason(error, data)) from error
        yield image
        del image  # Before the memory is given back.


def _open_within(
    limits: PhotoLimits, data: bytes, short_side: int, reserve: Callable[[int], None]
) -> ImageFile.ImageFile:
    """Open a photo that keeps to the limits, and reserve the memory that decoding may take."""
    if webp := webp_size(data):
        _check_pixels(webp, limits)
        reserve(memory_to_decode_webp(webp, data))
        return _open(data)
    image = _open(data)
    full = image.size
    _check_pixels(full, limits)
    image.draft(None, (short_side, short_side))
    reserve(memory_to_decode(image, full, data))
    return image


def _check_pixels(size: tuple[int, int], limits: PhotoLimits) -> None:
    if size[0] * size[1] > limits.max_pixels:
        raise PhotoRejected(RejectReason.TOO_LARGE)


def _open(data: bytes) -> ImageFile.ImageFile:
    """Parse the header, as `Image.open` does, but without its own limit on pixels."""
    prefix = data[:16]
    for name in _FORMATS:
        factory, accept = Image.OPEN[name]
        if accept and accept(prefix) is True:  # A string says that Pillow was built without it.
            return factory(BytesIO(data), "")
    raise PhotoRejected(RejectReason.NOT_AN_IMAGE)


def _orientation(image: Image.Image) -> int:
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
