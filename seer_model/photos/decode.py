"""Decode a photo's bytes into an upright sRGB image.

Thread-safe. Pillow releases the interpreter lock while it decodes, and a `ByteBudget` bounds the
memory that all threads take. A photo that cannot be decoded raises `PhotoRejected` and nothing
else.
"""

import ctypes
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from PIL import ExifTags, Image, ImageFile, JpegImagePlugin

from schemas.rejects import RejectReason
from seer_model.photos.byte_budget import ByteBudget
from seer_model.photos.colour import scale_key_colour, to_srgb, whiten_outside
from seer_model.photos.decode_cost import DecodeCost, webp_memory, webp_size
from seer_model.photos.hardened_pillow import ExcessiveMetadata, open_photo, quiet_pillow
from seer_model.photos.jpeg import load_jpeg
from seer_model.photos.limits import PhotoLimits, PhotoRejected

__all__ = ["decode_photo", "decode_reserved"]

# What makes a photo upright, by its EXIF orientation (EXIF 2.3, section 4.6.4).
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_ENDS_EARLY = ("truncated", "end of file")  # Said by Pillow; by libheif.


def decode_photo(data: bytes, short_side: int, limits: PhotoLimits) -> Image.Image:
    """Decode a JPEG (MPO), PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC, recognised by content.

    - Scale: a JPEG is decoded at 1/2, 1/4 or 1/8 scale if its short side keeps at least
      `short_side` pixels; libjpeg then skips most of the inverse cosine transform.
    - Frames: the first frame or page is used.
    - Transparency: composited on white.
    - Depth: 16-bit greyscale is divided by 257. 32-bit greyscale (integer or floating point) is
      divided by the first of the usual white levels that is not below its brightest pixel.
    - Colour: embedded colour profiles are applied, see `to_srgb`.
    - Orientation: taken from EXIF; a broken EXIF block leaves the photo as stored.

    Args:
        data: The encoded photo.
        short_side: Minimum for the short side, in pixels; a smaller photo is not enlarged.
        limits: Checked against the size in bytes and the header, before any pixel is decoded.

    Returns:
        An upright image of mode RGB, in sRGB.

    Raises:
        PhotoRejected: `EMPTY_FILE`, `NOT_AN_IMAGE`, `TOO_LARGE`, `TRUNCATED`, `READ_FAILED` if the
            process is out of memory, or `UNREADABLE` for anything else, including a premature end
            that cannot be told from corruption.
    """
    with decode_reserved(data, short_side, limits, None) as image:
        return image


@contextmanager
def decode_reserved(
    data: bytes, short_side: int, limits: PhotoLimits, memory: ByteBudget | None
) -> Iterator[Image.Image]:
    """Decode like `decode_photo`, with the peak memory reserved until the block ends.

    Args:
        data: See `decode_photo`.
        short_side: See `decode_photo`.
        limits: See `decode_photo`.
        memory: Shared by the threads that decode. The peak memory is estimated from the header and
            acquired before any pixel is decoded, waiting for other threads if necessary.
    """
    if not data:
        raise PhotoRejected(RejectReason.EMPTY_FILE)
    if len(data) > limits.max_bytes:
        raise PhotoRejected(RejectReason.TOO_LARGE)
    with ExitStack() as on_exit:

        def reserve(count: int) -> None:
            _check(count, limits.max_decode_memory)
            if memory is not None:
                memory.acquire(count)
                on_exit.callback(memory.release, count)
            on_exit.callback(_return_freed_memory, count)

        try:
            image = _decode(data, short_side, limits, reserve)
        except PhotoRejected:
            raise
        except Exception as error:
            raise PhotoRejected(_reject_reason(error, data)) from error
        yield image
        del image  # Free it before its reservation is released.


def _decode(
    data: bytes, short_side: int, limits: PhotoLimits, reserve: Callable[[int], None]
) -> Image.Image:
    with quiet_pillow():
        opened = _open_within_limits(data, short_side, limits, reserve)
        gif_frame = opened.tile[0].extents if opened.format == "GIF" else None
        scale_key_colour(opened)
        decoded = _load(opened, data)
        transpose = _TRANSPOSE.get(_exif_orientation(opened))
        image = to_srgb(decoded)
        del opened, decoded  # Free the decoded original before there is a third copy.
        if gif_frame is not None:
            whiten_outside(image, gif_frame)
        return image if transpose is None else image.transpose(transpose)


def _load(opened: ImageFile.ImageFile, data: bytes) -> Image.Image:
    if not isinstance(opened, JpegImagePlugin.JpegImageFile):
        opened.load()
        return opened
    decoded = load_jpeg(opened, data)
    decoded.info = opened.info
    return decoded


def _open_within_limits(
    data: bytes, short_side: int, limits: PhotoLimits, reserve: Callable[[int], None]
) -> ImageFile.ImageFile:
    """Open a photo at its reduced scale, and reserve the memory to decode it."""
    if size := webp_size(data):  # Opening a WebP already allocates its canvases.
        _check(size[0] * size[1], limits.max_pixels)
        reserve(webp_memory(size, data))
        return _open(data)
    image = _open(data)
    full_size = image.size
    _check(full_size[0] * full_size[1], limits.max_pixels)
    image.draft(None, (short_side, short_side))
    cost = DecodeCost(image, full_size, data)
    _check(cost.pixel_passes(), limits.max_pixels * limits.max_passes)
    reserve(cost.peak_memory())
    return image


def _check(value: int, limit: int) -> None:
    if value > limit:
        raise PhotoRejected(RejectReason.TOO_LARGE)


def _open(data: bytes) -> ImageFile.ImageFile:
    image = open_photo(data)
    if image is None:
        raise PhotoRejected(RejectReason.NOT_AN_IMAGE)
    return image


def _exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) if it is absent or cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises a dozen kinds of error for broken EXIF.
        return 1


def _reject_reason(error: Exception, data: bytes) -> RejectReason:
    if isinstance(error, MemoryError):  # Transient: the photo may be decoded another time.
        return RejectReason.READ_FAILED
    if isinstance(error, Image.DecompressionBombError | ExcessiveMetadata):
        return RejectReason.TOO_LARGE
    if "decompressed data too large" in str(error).lower():  # The colour profile of a PNG.
        return RejectReason.TOO_LARGE
    # Pillow wraps what its header parsers raise at the end of the data in a SyntaxError.
    at_end = isinstance(error.__cause__, EOFError | IndexError | struct.error)
    riff_size = int.from_bytes(data[4:8], "little") + 8
    riff_too_short = data.startswith(b"RIFF") and riff_size > len(data)
    if at_end or riff_too_short or any(end in str(error).lower() for end in _ENDS_EARLY):
        return RejectReason.TRUNCATED
    return RejectReason.UNREADABLE


# glibc keeps freed memory for the thread that freed it: with eight threads, up to four times what
# is in use. `malloc_trim` returns it to the operating system, less about 16 MiB a thread. Lowering
# glibc's mmap threshold instead would double the time of torch on a CPU.
_LARGE_BYTES = 16 << 20
_malloc_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)


def _return_freed_memory(count: int) -> None:
    """Return freed memory to the operating system after a decode that took `count` bytes."""
    if _malloc_trim is not None and count > _LARGE_BYTES:
        _malloc_trim(0)
