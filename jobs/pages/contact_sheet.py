"""A contact sheet: a grid of photos, each with a coloured strip, a title and a caption."""

import io
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from seer_model.photos.decode import decode_photo
from seer_model.photos.limits import PhotoLimits, PhotoRejected

__all__ = ["Tile", "draw_contact_sheet"]

_PAGE = "#eef0f3"
_CARD = "#ffffff"
_BORDER = "#d5d9e0"
_MAT = "#f6f7f9"
_NO_PHOTO = "#c9ced6"
_TITLE = "#1c2430"
_CAPTION = "#5b6675"
_DPI = 100
_FONT = "DejaVu Sans"
_LONGEST_TEXT = 200
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Tile:
    """One cell of a contact sheet.

    Attributes:
        photo: The encoded photo; None, or bytes that cannot be decoded, show a grey box.
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
    """Draw the tiles row by row.

    Args:
        tiles: What to show. Text is drawn literally, on one line; what does not fit ends in an
            ellipsis.
        columns: Tiles in a row; a single row is only as wide as its tiles.
        tile_size: Width of a tile, and of its photo's square, in pixels.

    Returns:
        An RGB image.
    """
    gap, card_height = max(4, tile_size // 15), tile_size + round(tile_size * 0.31)
    columns = max(1, min(columns, len(tiles)))
    rows = max(1, -(-len(tiles) // columns))
    width, height = columns * (tile_size + gap) + gap, rows * (card_height + gap) + gap
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=_PAGE)
    FigureCanvasAgg(figure)
    # One set of axes, in pixels from the top left corner: axes of its own for every tile take long.
    axes = figure.add_axes((0, 0, 1, 1))
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        corner = gap + column * (tile_size + gap), gap + row * (card_height + gap)
        _draw_card(axes, tile, corner, tile_size, card_height)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    pixels = io.BytesIO()
    figure.savefig(pixels, format="rgba")
    return Image.frombytes("RGBA", (width, height), pixels.getvalue()).convert("RGB")


def _draw_card(axes: Axes, tile: Tile, corner: tuple[int, int], side: int, height: int) -> None:
    left, top = corner
    strip, margin, line = max(3, side // 28), side // 18, side / 13.5

    def fill(y: float, tall: float, colour: str) -> Rectangle:
        rectangle = Rectangle((left, y), side, tall, color=colour, linewidth=0)
        axes.add_patch(rectangle)
        return rectangle

    card = fill(top, height, _CARD)
    pixels = _decode(tile.photo, side)
    fill(top, side, _NO_PHOTO if pixels is None else _MAT)
    if pixels is None:
        middle = (left + side / 2, top + side / 2)
        _draw_text(axes, middle, "no photo", _CAPTION, line, side, ha="center", va="center")
    else:
        _draw_photo(axes, pixels, corner, side)
    fill(top + side, strip, tile.colour)

    room, below = height - side - strip, top + side + strip
    for text, colour, size, share in (
        (tile.title, _TITLE, line, 0.30),
        (tile.caption, _CAPTION, side / 15, 0.71),
    ):
        place = (left + margin, below + share * room)
        shown = _draw_text(axes, place, text, colour, size, side - 2 * margin, va="center_baseline")
        shown.set_clip_path(card)
    border = Rectangle((left + 0.5, top + 0.5), side - 1, height - 1, fill=False, color=_BORDER)
    axes.add_patch(border).set_linewidth(72 / _DPI)


def _draw_photo(
    axes: Axes, pixels: npt.NDArray[np.uint8], corner: tuple[int, int], side: int
) -> None:
    """Draw a photo in the middle of a square, as large as fits."""
    scale = side / max(pixels.shape[:2])
    across, down = (max(1, round(length * scale)) for length in pixels.shape[1::-1])
    left, top = corner[0] + (side - across) // 2, corner[1] + (side - down) // 2
    axes.imshow(
        pixels,
        extent=(left, left + across, top + down, top),
        aspect="auto",
        interpolation="antialiased",
        zorder=1,  # As the patches, so that the order of drawing decides.
    )


def _decode(photo: bytes | None, side: int) -> npt.NDArray[np.uint8] | None:
    """Decode a photo, upright, at about the size of a square; None if it cannot be decoded."""
    try:
        return None if photo is None else np.asarray(decode_photo(photo, side, PhotoLimits()))
    except PhotoRejected:
        return None


def _draw_text(
    axes: Axes,
    place: tuple[float, float],
    text: str,
    colour: str,
    size: float,
    width: float,
    **alignment: Any,
) -> Text:
    """Draw literal text of a size, in pixels, cut to a width, in pixels."""
    font = FontProperties(family=_FONT, size=size * 72 / _DPI)
    drawn = axes.text(
        *place, "", color=colour, font=font, parse_math=False, usetex=False, **alignment
    )

    def width_of(shown: str) -> float:
        drawn.set_text(shown)
        return drawn.get_window_extent().width

    line = _printable(text, font)
    if len(text) > len(line) or width_of(line) > width:
        lengths = range(1, len(line))
        kept = bisect_right(lengths, width, key=lambda length: width_of(f"{line[:length]}…"))
        drawn.set_text(f"{line[:kept].rstrip()}…")
    return drawn


def _printable(text: str, font: FontProperties) -> str:
    """Return the start of a text on one line, without what the font cannot draw."""
    glyphs = get_font(findfont(font)).get_charmap()
    return "".join(
        " " if not char.isprintable() else char if ord(char) in glyphs else _REPLACEMENT
        for char in text[:_LONGEST_TEXT]
    )
