"""The colours a person would see: a decoded photo of any mode, depth and colour profile in sRGB."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageFile

__all__ = ["scale_key_colour", "to_srgb", "whiten_outside"]

# The value that is white in a mode deeper than eight bits: the first one that no pixel exceeds.
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
_MOST_PROFILE_BYTES = 4 << 20  # Those of printing presses have 0.5 to 2.5 MB.
_UNSEEN = 2  # Of 255: how far the many profiles that are called sRGB are apart.


def scale_key_colour(image: ImageFile.ImageFile) -> None:
    """Make the transparent colour of a PNG one of its pixels': Pillow scales only those to 8 bits.

    Args:
        image: Opened, and not yet decoded.
    """
    key = image.info.get("transparency")
    stored_as = image.tile[0].args if image.format == "PNG" and image.tile else None
    if isinstance(key, int) and stored_as in ("L;2", "L;4"):
        image.info["transparency"] = key * (85 if stored_as == "L;2" else 17)
    elif isinstance(key, tuple) and stored_as == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


def to_srgb(image: Image.Image) -> Image.Image:
    """A decoded photo as RGB, on white where it is transparent.

    The colour profile is applied where it is of the photo's own colour space (RGB, grey or CMYK),
    by its perceptual intent; one that cannot be read is left alone, and so is one that would change
    no colour by more than 2 of 255, as the usual ones of sRGB. A CMYK photo without one is
    converted as if ink were the absence of light.
    """
    transform = _transform_of(image)
    if transform is None:
        return _flat(image)
    if image.mode == "CMYK":
        return transform.apply(image)
    rgb = _flat(image)
    if image.mode not in _GREY_MODES:
        return transform.apply_in_place(rgb)
    rgb = rgb.getchannel(0)
    return transform.apply(rgb)


def whiten_outside(image: Image.Image, box: tuple[int, int, int, int]) -> None:
    """Make white, in place, what lies outside of the first frame of a GIF, and is transparent."""
    left, top, right, bottom = box
    width, height = image.size
    for strip in (
        (0, 0, width, top),
        (0, bottom, width, height),
        (0, 0, left, height),
        (right, 0, width, height),
    ):
        image.paste("white", strip)


def _transform_of(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    profile = image.info.get("icc_profile")
    if not profile or len(profile) > _MOST_PROFILE_BYTES:
        return None
    transform = _transform(profile)
    if transform is None:
        return None
    own = "CMYK" if image.mode == "CMYK" else "L" if image.mode in _GREY_MODES else "RGB"
    return transform if transform.input_mode == own else None


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """From a profile's colours to sRGB; building one takes 2 ms, and more for large tables."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        mode = _MODE_OF_SPACE[source.profile.xcolor_space]
        transform = ImageCms.ImageCmsTransform(source, _SRGB, mode, "RGB")
    except (KeyError, OSError, ValueError):
        return None
    if mode != "CMYK":
        steps = Image.fromarray(_COLOUR_STEPS).convert(mode)
        change = np.asarray(transform.apply(steps), int) - np.asarray(steps.convert("RGB"), int)
        if np.abs(change).max() <= _UNSEEN:
            return None
    return transform


# Every 15th level of each channel, red along the rows.
_COLOUR_STEPS = np.moveaxis(np.indices((18, 18, 18), np.uint8) * 15, 0, 3).reshape(18 * 18, 18, 3)


def _flat(image: Image.Image) -> Image.Image:
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
    transparent = image.info.get("transparency")
    peak = values.max()
    white = next((level for level in _WHITE_LEVELS[image.mode] if peak <= level), peak)
    if isinstance(transparent, int):
        values[values == transparent] = white
    np.clip(values, 0, white, out=values)
    values *= 255 / white
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8))
