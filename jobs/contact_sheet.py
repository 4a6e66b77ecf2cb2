"""A contact sheet: photos in a grid, each with a coloured strip, a title and a caption."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from seer_model.photos import PhotoLimits, PhotoRejected, decode_photo

__all__ = ["Tile", "draw_contact_sheet"]

_PAGE = "#eef0f3"
_CARD = "#ffffff"
_BORDER = "#d5d9e0"
_MAT = "#f6f7f9"
_NO_PHOTO = "#c9ced6"
_TITLE = "#1c2430"
_CAPTION = "#5b6675"
_ELLIPSIS = "..."
_LONGEST_TEXT = 200
_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True)
class Tile:
    """One cell of a contact sheet.

    Attributes:
        photo: The encoded photo; None, or bytes that are no photo, show a grey box.
        title: The first line under the photo.
        caption: The second, smaller line.
        colour: The colour of the strip, by name or as `#rrggbb`.
    """

    photo: bytes | None
    title: str
    caption: str
    colour: str


def draw_contact_sheet(
    tiles: Sequence[Tile], columns: int = 6, tile_size: int = 180
) -> Image.Image:
    """Draws the tiles row by row.

    Args:
        tiles: What to show; text that does not fit ends in dots.
        columns: Tiles in a row; a single row is only as wide as its tiles.
        tile_size: Width of a tile, and of its photo's square, in pixels.

    Returns:
        An RGB picture.
    """
    gap = max(4, tile_size // 15)
    fonts = ImageFont.load_default(tile_size / 12), ImageFont.load_default(tile_size / 14)
    card_height = tile_size + round(tile_size * 0.31)
    columns = max(1, min(columns, len(tiles)))
    rows = max(1, -(-len(tiles) // columns))
    size = (columns * (tile_size + gap) + gap, rows * (card_height + gap) + gap)
    sheet = Image.new("RGB", size, _PAGE)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        card = _draw_card(tile, (tile_size, card_height), fonts)
        sheet.paste(card, (gap + column * (tile_size + gap), gap + row * (card_height + gap)))
    return sheet


def _draw_card(tile: Tile, size: tuple[int, int], fonts: tuple[_Font, _Font]) -> Image.Image:
    side, height = size
    card = Image.new("RGB", size, _CARD)
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, side, side), fill=_MAT)
    photo = _thumbnail(tile.photo, side)
    if photo is None:
        draw.rectangle((0, 0, side, side), fill=_NO_PHOTO)
        draw.text((side / 2, side / 2), "no photo", _CAPTION, fonts[0], anchor="mm")
    else:
        card.paste(photo, ((side - photo.width) // 2, (side - photo.height) // 2))
    strip = max(3, side // 28)
    draw.rectangle((0, side, side, side + strip - 1), fill=tile.colour)
    margin = side // 18
    line = (height - side - strip) / 2
    texts = ((tile.title, _TITLE, fonts[0], 0.56), (tile.caption, _CAPTION, fonts[1], 1.42))
    for text, colour, font, lines in texts:
        fitting = _fit(text, font, side - 2 * margin)
        draw.text((margin, side + strip + line * lines), fitting, colour, font, anchor="lm")
    draw.rectangle((0, 0, side - 1, height - 1), outline=_BORDER)
    return card


def _thumbnail(photo: bytes | None, side: int) -> Image.Image | None:
    """The upright photo, shrunk or enlarged until it just fits a square; None if it is none."""
    if photo is None:
        return None
    try:
        image = decode_photo(photo, side, PhotoLimits())
    except PhotoRejected:
        return None
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _fit(text: str, font: _Font, width: float) -> str:
    """As much of `text` as fits, on one line; what cannot be printed becomes a space."""
    printable = "".join(char if char.isprintable() else " " for char in text[:_LONGEST_TEXT])
    if len(text) <= _LONGEST_TEXT and font.getlength(printable) <= width:
        return printable
    while printable and font.getlength(printable + _ELLIPSIS) > width:
        printable = printable[:-1]
    return printable.rstrip() + _ELLIPSIS
