"""Seeded photos for benchmarks: coarse shapes on a shaded background, with sensor noise.

The noise makes a JPEG as large as a camera's, and its entropy decoding as slow.
"""

import io

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["draw_photo"]

_WIDTH, _HEIGHT = 1280, 960
_QUALITY = 85
_SHAPES = 30
_NOISE = 4.3
"""Standard deviation (of 255) that gives photos of about 200 KB."""


def draw_photo(seed: int) -> bytes:
    """Draw a JPEG of 1280 by 960 pixels, quality 85, about 200 KB."""
    rng = np.random.default_rng(seed)
    ground = Image.fromarray(rng.integers(40, 216, (6, 8, 3), np.uint8))
    scene = ground.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(scene)
    for _ in range(_SHAPES):
        x, y = rng.uniform(-0.1, 1, 2) * (_WIDTH, _HEIGHT)
        width, height = rng.uniform(20, 300, 2)
        draw = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        draw((x, y, x + width, y + height), fill=tuple(rng.integers(0, 256, 3).tolist()))
    grain = rng.standard_normal((_HEIGHT, _WIDTH, 1), np.float32)
    pixels = np.asarray(scene, np.float32) + np.float32(_NOISE) * grain
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
