"""Photos as they come back in other listings: scaled, compressed, cropped, mirrored, framed …"""

import io
from collections.abc import Iterator

from PIL import Image, ImageEnhance

__all__ = ["as_jpeg", "edits"]


def as_jpeg(image: Image.Image, quality: int = 85) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def edits(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    """What sellers do to a photo, by name."""
    width, height = image.size

    def crop(share: float) -> Image.Image:
        box = (width * share, height * share, width * (1 - share), height * (1 - share))
        return image.crop(tuple(round(side) for side in box))  # type: ignore[arg-type]

    framed = Image.new("RGB", (round(width * 1.1), round(height * 1.1)), "white")
    framed.paste(image, (round(width * 0.05), round(height * 0.05)))
    yield "compressed", as_jpeg(image, 30)
    yield "half the size", as_jpeg(image.resize((max(1, width // 2), max(1, height // 2))))
    yield "cropped by 5 %", as_jpeg(crop(0.05))
    yield "cropped by 10 %", as_jpeg(crop(0.1))
    yield "mirrored", as_jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    yield "brighter", as_jpeg(ImageEnhance.Brightness(image).enhance(1.2))
    yield "paler", as_jpeg(ImageEnhance.Color(image).enhance(0.6))
    yield "framed", as_jpeg(framed)
