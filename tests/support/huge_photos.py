"""48-megapixel photos, the size that phones take."""

import io

import numpy as np
from PIL import Image

SIZE = (8000, 6000)


def huge_photos() -> list[bytes]:
    """A baseline JPEG, a progressive JPEG and a PNG."""
    noise = np.random.default_rng(0).integers(0, 128, (600, 800, 3), np.uint8)
    image = Image.fromarray(np.tile(noise, (SIZE[1] // 600, SIZE[0] // 800, 1)))
    return [
        _encoded(image, "JPEG", quality=60),
        _encoded(image, "JPEG", quality=60, progressive=True),
        _encoded(Image.new("RGB", SIZE, (9, 80, 200)), "PNG"),
    ]


def _encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
