"""Degradations that sellers' photos suffer from; each maps an image to one of the same size."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

__all__ = ["DEGRADATIONS"]

_THUMBNAIL = 64
_JPEG_QUALITY = 15


def _blur(image: Image.Image) -> Image.Image:
    """Gaussian blur with a radius of 1/60 of the short side, as when out of focus."""
    return image.filter(ImageFilter.GaussianBlur(min(image.size) / 60))


def _low_light(image: Image.Image) -> Image.Image:
    """A fifth of the light, with sensor noise of standard deviation 6 (of 255)."""
    dark = np.asarray(image, np.float32) * 0.2
    noise = np.random.default_rng(image.width * image.height).normal(0, 6, dark.shape)
    return Image.fromarray(np.clip(dark + noise, 0, 255).astype(np.uint8))


def _strong_jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return Image.open(buffer).convert("RGB")


def _thumbnail(image: Image.Image) -> Image.Image:
    """Upsampled from a thumbnail of 64 pixels on the short side."""
    scale = _THUMBNAIL / min(image.size)
    small = image.resize((round(image.width * scale), round(image.height * scale)))
    return small.resize(image.size)


def _rotation(image: Image.Image) -> Image.Image:
    """Rotated onto its side."""
    return image.transpose(Image.Transpose.ROTATE_90)


DEGRADATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blur": _blur,
    "low light": _low_light,
    "JPEG quality 15": _strong_jpeg,
    "64 px thumbnail": _thumbnail,
    "rotated by 90°": _rotation,
}
