"""Photos that are drawn and encoded for the tests, what is decoded of them, and how it differs."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from schemas.rejects import RejectReason
from seer_model.photo_reading import read_photo
from seer_model.photos import PhotoLimits, PhotoRejected, decode_photo

LIMITS = PhotoLimits()
FULL = 1 << 16
"""A short side that no photo here has, so nothing is decoded at reduced scale."""
FORMATS = ["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]

Pixels = npt.NDArray[np.uint8]


def scene(width: int = 160, height: int = 120) -> Image.Image:
    """Like a photo: smooth shapes, some edges, and another colour at each corner."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    red = 128 + 100 * np.sin(5 * x + 2 * y)
    green = 255 * y * height / width % 256
    blue = np.where((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.05, 220, 60 + 40 * np.cos(9 * x))
    return Image.fromarray(np.stack([red, green, blue], axis=2).clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def encode_well(image: Image.Image, form: str, **options: object) -> bytes:
    """Without loss where the format can, else nearly so."""
    best: dict[str, dict[str, object]] = {
        "JPEG": {"quality": 98, "subsampling": 0},
        "MPO": {"quality": 98, "subsampling": 0},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 98, "subsampling": "4:4:4"},
    }
    return encode(image, form, **best.get(form, {}), **options)


def decoded(data: bytes) -> Pixels:
    image = decode_photo(data, FULL, LIMITS)
    assert image.mode == "RGB"
    return np.asarray(image)


def difference(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Mean absolute difference, of 255."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def verdict_on_address(uri: str, limits: PhotoLimits = LIMITS) -> RejectReason:
    with pytest.raises(PhotoRejected) as caught:
        read_photo(uri, limits)
    return caught.value.reason


SAMPLES = {form: encode(scene(48, 32), form) for form in FORMATS}
SAMPLES["EXIF"] = encode(
    scene(48, 32),
    "JPEG",
    exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\6\0\0\0\0\0\0",
)
SAMPLES["LZW"] = encode(scene(48, 32), "TIFF", compression="tiff_lzw")
SAMPLES["APNG"] = encode(scene(48, 32), "PNG", save_all=True, append_images=[scene(48, 32)])
