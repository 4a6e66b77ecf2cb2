"""Decode JPEGs with the warnings of libjpeg-turbo, so that no half of a photo passes for a whole.

Where data are missing, libjpeg fills the rest with grey and warns. Pillow drops its warnings;
simplejpeg raises the first one, and gives the same pixels to the bit, in less time.
"""

import re

import simplejpeg
from PIL import Image, JpegImagePlugin

from schemas.rejects import RejectReason
from seer_model.photos.limits import PhotoRejected

__all__ = ["load_jpeg"]

# By Pillow's mode: the name of simplejpeg, and of the layout to Pillow, which takes all inks to be
# inverted, as Adobe's are.
_FORMS = {"RGB": ("RGB", "RGB"), "L": ("GRAY", "L"), "CMYK": ("CMYK", "CMYK;I")}
_DAMAGE = ("bad Huffman code", "bad arithmetic code", "instead of RST")
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker")
# Cameras pad their data by some bytes. A part of a photo that was filled with zeros leaves more.
_MOST_PADDING = 16
_MOST_PADDING_SHARE = 0.02


def load_jpeg(opened: JpegImagePlugin.JpegImageFile, data: bytes) -> Image.Image:
    """Decode a JPEG at the size that its `draft` chose.

    Args:
        opened: Opened, not decoded yet.
        data: The same photo, encoded.

    Raises:
        PhotoRejected: `TRUNCATED` or `UNREADABLE` if pixels are missing or wrong.
        Exception: Whatever Pillow raises.
    """
    colour_space, layout = _FORMS[opened.mode]
    width, height = opened.size
    try:
        pixels = simplejpeg.decode_jpeg(data, colour_space, min_width=width, min_height=height)
    except ValueError as error:
        if reason := _reject_reason(str(error), len(data)):
            raise PhotoRejected(reason) from error
    else:
        if pixels.shape[:2] == (height, width):
            return Image.frombuffer(opened.mode, opened.size, pixels, "raw", layout, 0, 1)
    # Pillow reads what simplejpeg does not, and tolerates harmless oddities.
    opened.load()
    return opened


def _reject_reason(warning: str, size: int) -> RejectReason | None:
    """What a warning of libjpeg (its `jerror.h`) says of a photo; None if it does no harm."""
    if "remature end of" in warning:  # "… data segment", "… JPEG file".
        return RejectReason.TRUNCATED
    if any(damage in warning for damage in _DAMAGE):
        return RejectReason.UNREADABLE
    found = _EXTRANEOUS.search(warning)
    padding = max(_MOST_PADDING, size * _MOST_PADDING_SHARE)
    return RejectReason.UNREADABLE if found and int(found[1]) > padding else None
