"""Photos that are drawn and encoded for the tests, what is decoded of them, and how it differs."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image

from schemas.rejects import RejectReason
from seer_model.photo_access import SCHEMES, PhotoAccess
from seer_model.photo_reading import read_photo
from seer_model.photos import PhotoLimits, PhotoRejected, decode_photo

LIMITS = PhotoLimits(
    access=PhotoAccess(
        schemes=(*SCHEMES, "memory", "hanging", "nodriver", "blockcache"), private_hosts=True
    )
)
"""The default ones, but for addresses that only tests have."""
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


def stored_as(upright: Pixels, orientation: int) -> Pixels:
    """What a camera stores (EXIF 2.3, 4.6.4): which side of the scene is row 0, and column 0."""
    row, column = [
        ("top", "left"),
        ("top", "right"),
        ("bottom", "right"),
        ("bottom", "left"),
        ("left", "top"),
        ("right", "top"),
        ("right", "bottom"),
        ("left", "bottom"),
    ][orientation - 1]
    stored = upright.transpose(1, 0, 2) if row in ("left", "right") else upright
    if row in ("bottom", "right"):
        stored = stored[::-1]
    if column in ("bottom", "right"):
        stored = stored[:, ::-1]
    return np.ascontiguousarray(stored)


def turned(upright: Image.Image, form: str, orientation: int, **options: object) -> bytes:
    """A photo that is stored as a camera held some other way stores it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = Image.fromarray(stored_as(np.asarray(upright), orientation))
    return encode_well(stored, form, exif=exif, **options)


def ycck_jpeg(image: Image.Image) -> bytes:
    """A JPEG in YCCK, as Adobe writes it, with no black ink."""
    # Pillow writes no YCCK: give it the components of one, and put the colour transform 2 into
    # the Adobe marker. It inverts every component on the way, as Adobe does.
    inks = Image.merge("RGB", image.convert("CMYK").split()[:3]).convert("YCbCr")
    inverted = [band.point(lambda value: 255 - value) for band in inks.split()]
    data = encode_well(Image.merge("CMYK", [*inverted, Image.new("L", inks.size, 0)]), "JPEG")
    marker = data.index(b"Adobe")
    return data[: marker + 11] + b"\x02" + data[marker + 12 :]


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
