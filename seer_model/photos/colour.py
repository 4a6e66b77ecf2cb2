"""Convert a decoded photo of any mode, bit depth and colour profile to sRGB, on white."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageFile

__all__ = ["scale_key_colour", "to_srgb", "whiten_outside"]

# Candidates for the white level of a mode deeper than 8 bits: the first that no pixel exceeds.
_WHITE_LEVELS: dict[str, tuple[float, ...]] = {
    "I;16": (65535,),
    "I;16L": (65535,),
    "I;16B": (65535,),
    "I;16N": (65535,),
    "I": (65535, 2**31 - 1),
    "F": (1, 255, 65535),
}
_GREY_MODES = frozenset({"1", "L", "LA", *_WHITE_LEVELS})

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_MODE_OF_SPACE = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # ICC.1:2022, table 19.
_MAX_PROFILE_BYTES = 4 << 20  # Profiles of printing presses have 0.5 to 2.5 MB.
_IMPERCEPTIBLE = 2  # Of 255: how far the many profiles called sRGB differ from each other.


def scale_key_colour(image: ImageFile.ImageFile) -> None:
    """Scale the transparent colour of a PNG to 8 bits, as Pillow does only with the pixels.

    Args:
        image: Opened, not decoded yet; changed in place.
    """
    key = image.info.get("transparency")
    stored_as = image.tile[0].args if image.format == "PNG" and image.tile else None
    if isinstance(key, int) and stored_as in ("L;2", "L;4"):
        image.info["transparency"] = key * (85 if stored_as == "L;2" else 17)
    elif isinstance(key, tuple) and stored_as == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert a decoded photo to sRGB (mode RGB), composited on white.

    An embedded colour profile is applied with its perceptual intent. It is ignored if it cannot be
    read, if it describes another colour space (RGB, grey or CMYK) than that of the photo, or if it
    would change no colour by more than 2 of 255, like most profiles of sRGB. CMYK without a profile
    is converted as if ink were the absence of light.
    """
    transform = _embedded_transform(image)
    if transform is None:
        return _to_opaque_rgb(image)
    if image.mode == "CMYK":
        return transform.apply(image)
    rgb = _to_opaque_rgb(image)
    if image.mode in _GREY_MODES:
        return transform.apply(rgb.getchannel(0))
    return transform.apply_in_place(rgb)


def whiten_outside(image: Image.Image, box: tuple[int, int, int, int]) -> None:
    """Make everything outside `box` white, in place: what the first frame of a GIF leaves clear."""
    left, top, right, bottom = box
    width, height = image.size
    for strip in (
        (0, 0, width, top),
        (0, bottom, width, height),
        (0, 0, left, height),
        (right, 0, width, height),
    ):
        image.paste("white", strip)


def _embedded_transform(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """The transform from a photo's embedded profile to sRGB; None if there is none to apply."""
    profile = image.info.get("icc_profile")
    if not profile or len(profile) > _MAX_PROFILE_BYTES:
        return None
    transform = _transform_to_srgb(profile)
    if transform is None:
        return None
    own = "CMYK" if image.mode == "CMYK" else "L" if image.mode in _GREY_MODES else "RGB"
    return transform if transform.input_mode == own else None


# Building a transform takes 2 ms, and more for a profile with large tables.
@lru_cache(maxsize=16)
def _transform_to_srgb(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        mode = _MODE_OF_SPACE[source.profile.xcolor_space]
        transform = ImageCms.ImageCmsTransform(source, _SRGB, mode, "RGB")
    except (KeyError, OSError, ValueError):
        return None
    if mode != "CMYK":
        samples = Image.fromarray(_RGB_GRID).convert(mode)
        change = np.asarray(transform.apply(samples), int) - np.asarray(samples.convert("RGB"), int)
        if np.abs(change).max() <= _IMPERCEPTIBLE:
            return None
    return transform


# Every 15th level of each channel, as an image: red changes along its rows.
_RGB_GRID = np.moveaxis(np.indices((18, 18, 18), np.uint8) * 15, 0, 3).reshape(18 * 18, 18, 3)


def _to_opaque_rgb(image: Image.Image) -> Image.Image:
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
    key = image.info.get("transparency")
    peak = values.max()
    white = next((level for level in _WHITE_LEVELS[image.mode] if peak <= level), peak)
    if isinstance(key, int):
        values[values == key] = white
    np.clip(values, 0, white, out=values)
    values *= 255 / white
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8))
