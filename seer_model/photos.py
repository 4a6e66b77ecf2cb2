"""Decoding a photo's bytes into an upright RGB image.

Nothing here raises for a bad photo but `PhotoRejected`, whose reason is one of the closed set in
`schemas.rejects`. It may run in any number of threads at once; Pillow releases the interpreter lock
while it decodes, and a `ByteBudget` bounds the memory that they take together.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from PIL import ExifTags, Image, ImageFile

from schemas.rejects import RejectReason
from seer_model.bounded_pillow import ExcessiveMetadata, open_photo, silent_pillow
from seer_model.byte_budget import ByteBudget
from seer_model.decode_memory import (
    let_go,
    memory_to_decode,
    memory_to_decode_webp,
    pixels_to_decode,
    scans_of,
    webp_size,
)
from seer_model.photo_access import PhotoAccess
from seer_model.photo_colours import scale_key_colour, to_srgb, whiten_outside

__all__ = ["PhotoLimits", "PhotoRejected", "decode_photo", "decoded_photo"]

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


@dataclass(frozen=True)
class PhotoLimits:
    """Which photos may be read: how large, how slow, and from where.

    Attributes:
        max_bytes: Size of the encoded photo, in bytes.
        max_pixels: Width times height, as the header states them.
        max_encoded_memory: Encoded bytes that photos on their way to the decoders may take
            together, in a task; one that is not read yet counts as `max_bytes`.
        max_decode_memory: Bytes of memory that photos being decoded at the same time may take
            together, in a process; a photo that needs more by itself is refused. A pixel counts as
            8 to 22 bytes, by format and mode; for a JPEG those of the reduced scale count, and
            where it is progressive 2 to 8 bytes more for each pixel of the full scale.
        max_passes: How often decoding may pass over a photo of `max_pixels`, or in proportion more
            often over a smaller one: a JPEG may come in any number of scans. This is what bounds
            the time of a photo (20 passes of 100 megapixels take 2 seconds); a limit in seconds
            would let a photo's fate depend on what else the machine does.
        max_seconds: How long reading a photo from a remote store may take, all tries together.
        access: Which addresses may be read.
    """

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 100_000_000
    max_encoded_memory: int = 256 * 1024 * 1024
    max_decode_memory: int = 1024 * 1024 * 1024
    max_passes: int = 20
    max_seconds: float = 120.0
    access: PhotoAccess = field(default_factory=PhotoAccess)


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
    that holds its brightest pixel. Colour profiles are applied, see `to_srgb`. A broken EXIF block
    leaves the photo as it is stored.

    Args:
        data: The encoded photo.
        short_side: Pixels the short side should have at least; a smaller photo is not enlarged.
        limits: Checked against the bytes and the header, before a pixel is decoded.
        memory: What other threads decode from too. As many bytes as decoding may take, by the
            header, are held while it runs, and waited for before a pixel is decoded.

    Returns:
        An upright image of mode RGB, its colours those of sRGB.

    Raises:
        PhotoRejected: `EMPTY_FILE`, `NOT_AN_IMAGE`, `TOO_LARGE`, `TRUNCATED`, `READ_FAILED` where
            the machine has no memory left, or `UNREADABLE` for anything else, which includes an
            early end that cannot be told from corruption.
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
            with silent_pillow():
                opened = _open_within(limits, data, short_side, reserve)
                frame = opened.tile[0].extents if opened.format == "GIF" else None
                scale_key_colour(opened)
                opened.load()
                transpose = _UPRIGHT.get(_orientation(opened))
                image = to_srgb(opened)
                del opened  # What was decoded, before there is a third copy.
                if frame is not None:
                    whiten_outside(image, frame)
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
        _check(webp[0] * webp[1], limits.max_pixels)
        reserve(memory_to_decode_webp(webp, data))
        return _open(data)
    image = _open(data)
    full = image.size
    _check(full[0] * full[1], limits.max_pixels)
    image.draft(None, (short_side, short_side))
    scans = scans_of(image, data)
    _check(pixels_to_decode(image, full, scans), limits.max_pixels * limits.max_passes)
    reserve(memory_to_decode(image, full, data, scans))
    return image


def _check(count: int, limit: int) -> None:
    if count > limit:
        raise PhotoRejected(RejectReason.TOO_LARGE)


def _open(data: bytes) -> ImageFile.ImageFile:
    image = open_photo(data)
    if image is None:
        raise PhotoRejected(RejectReason.NOT_AN_IMAGE)
    return image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1, upright, where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises a dozen kinds of error for broken EXIF.
        return 1


def _reason(error: BaseException, data: bytes) -> RejectReason:
    if isinstance(error, MemoryError):  # It may go well when the machine has some again.
        return RejectReason.READ_FAILED
    if isinstance(error, Image.DecompressionBombError | ExcessiveMetadata):
        return RejectReason.TOO_LARGE
    if "decompressed data too large" in str(error).lower():  # A colour profile of a PNG.
        return RejectReason.TOO_LARGE
    # Pillow wraps what its parsers of headers raise at the end of the data in a SyntaxError.
    at_end = isinstance(error.__cause__, EOFError | IndexError | struct.error)
    riff_size = int.from_bytes(data[4:8], "little") + 8
    riff_too_short = data.startswith(b"RIFF") and riff_size > len(data)
    if at_end or riff_too_short or "truncated" in str(error).lower():
        return RejectReason.TRUNCATED
    return RejectReason.UNREADABLE
