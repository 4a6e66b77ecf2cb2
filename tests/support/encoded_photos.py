"""Draw and encode photos, decode them again, and compare."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image

from schemas.rejects import RejectReason
from seer_model.photos.decode import decode_photo
from seer_model.photos.fetch import read_photo
from seer_model.photos.limits import SCHEMES, PhotoAccess, PhotoLimits, PhotoRejected

LIMITS = PhotoLimits(
    access=PhotoAccess(
        schemes=(*SCHEMES, "memory", "hanging", "nodriver", "blockcache"), private_hosts=True
    )
)
"""The defaults, plus private hosts and the schemes that only tests use."""
FULL = 1 << 16
"""A short side above that of any photo here: nothing is decoded at reduced scale."""
FORMATS = ["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]

Pixels = npt.NDArray[np.uint8]


def scene(width: int = 160, height: int = 120) -> Image.Image:
    """Photo-like content: gradients, some edges, and a different colour at each corner."""
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
    """Encode losslessly if the format can, otherwise at high quality."""
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
    """Mean absolute difference, 0 to 255."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def stored_as(upright: Pixels, orientation: int) -> Pixels:
    """The pixels as a camera stores them (EXIF 2.3, 4.6.4): which sides are row 0 and column 0."""
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
    """An upright scene, stored with an EXIF orientation."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = Image.fromarray(stored_as(np.asarray(upright), orientation))
    return encode_well(stored, form, exif=exif, **options)


def ycck_jpeg(image: Image.Image) -> bytes:
    """A YCCK JPEG as Adobe writes it, without black ink."""
    # Pillow cannot write YCCK: pass its components off as CMYK, then set the colour transform of
    # the Adobe marker to 2. Pillow inverts all components, as Adobe does.
    inks = Image.merge("RGB", image.convert("CMYK").split()[:3]).convert("YCbCr")
    inverted = [band.point(lambda value: 255 - value) for band in inks.split()]
    data = encode_well(Image.merge("CMYK", [*inverted, Image.new("L", inks.size, 0)]), "JPEG")
    marker = data.index(b"Adobe")
    return data[: marker + 11] + b"\x02" + data[marker + 12 :]


def reject_reason_of(uri: str, limits: PhotoLimits = LIMITS) -> RejectReason:
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
