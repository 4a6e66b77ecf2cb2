"""Photos with something written on them, as sellers do."""

import random

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from tests.support.edited_photos import as_jpeg

__all__ = ["write_on"]

_FAMILIES = ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono", "STIXGeneral")
_COLOURS = ("white", "black", "red", "yellow", "blue", "green")


def write_on(image: Image.Image, text: str, share: float, seed: int) -> bytes:
    """Write a line on a photo of 960 pixels, somewhere, in some font and colour.

    Args:
        image: The photo; enlarged if it is smaller.
        text: The line.
        share: Its height, as a share of the photo's short side; less where the line would not fit.
        seed: Of place, font, colour, and of the box behind it that every third one has.

    Returns:
        A JPEG.
    """
    rng = random.Random(seed)
    scale = 960 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)))
    family, size = font_manager.findfont(rng.choice(_FAMILIES)), share * 960
    wide = ImageFont.truetype(family, size).getlength(text) / (0.95 * image.width)
    size /= max(1, wide)
    font = ImageFont.truetype(family, size)
    width, height = font.getlength(text), 1.3 * size
    x, y = rng.uniform(0, max(1, image.width - width)), rng.uniform(0, image.height - height)
    draw = ImageDraw.Draw(image)
    colour = rng.choice(_COLOURS)
    if rng.random() < 1 / 3:
        behind = rng.choice([other for other in _COLOURS if other != colour])
        draw.rectangle((x - 8, y - 4, x + width + 8, y + height), fill=behind)
    draw.text((x, y), text, font=font, fill=colour)
    return as_jpeg(image, rng.choice([60, 75, 85]))
