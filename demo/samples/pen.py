"""Antialiased, softly shaded shapes in unit coordinates (x to the right, y down)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

__all__ = [
    "Colour",
    "Pen",
    "Points",
    "box",
    "ellipse",
    "mirrored",
    "mix",
    "moved",
    "ribbon",
    "smooth",
]

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

Points = NDArray[np.float64]
"""Corners of a shape, of shape `(n, 2)`."""

_SUPERSAMPLING = 2
_PATTERN_CELLS = 14


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """Blend two colours: `share` (0 to 1) of the way from `colour` to `other`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def smooth(points: ArrayLike, *, closed: bool = True) -> Points:
    """A Catmull-Rom curve through `points`; a point given twice is a sharp corner."""
    through = np.asarray(points, np.float64)
    if not closed:
        through = np.concatenate([through[:1], through, through[-1:]])
    before, after = np.roll(through, 1, axis=0), np.roll(through, -1, axis=0)
    corner = (through == before).all(axis=1) | (through == after).all(axis=1)
    slope = np.where(corner[:, None], 0, (after - before) / 2)
    t = np.linspace(0, 1, 10, endpoint=False)[:, None]
    curve = (
        (1 + 2 * t) * (1 - t) ** 2 * through[:, None]
        + t * (1 - t) ** 2 * slope[:, None]
        + t**2 * (3 - 2 * t) * after[:, None]
        + t**2 * (t - 1) * np.roll(slope, -1, axis=0)[:, None]
    )
    if closed:
        return curve.reshape(-1, 2)
    return np.concatenate([curve[1:-2].reshape(-1, 2), through[-1:]])


def ellipse(
    x: float, y: float, rx: float, ry: float, *, arc: tuple[float, float] = (0, 360)
) -> Points:
    """An ellipse around `(x, y)`, or an arc of it (from, to, in degrees, clockwise from 3 h)."""
    angle = np.radians(np.linspace(*arc, 48))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def box(left: float, top: float, right: float, bottom: float, radius: float = 0.0) -> Points:
    """A rectangle with rounded corners."""
    corners = (
        (right - radius, bottom - radius, 0),
        (left + radius, bottom - radius, 90),
        (left + radius, top + radius, 180),
        (right - radius, top + radius, 270),
    )
    return np.concatenate(
        [ellipse(x, y, radius, radius, arc=(angle, angle + 90))[::6] for x, y, angle in corners]
    )


def moved(outline: Points, x: float, y: float) -> Points:
    """Translate a shape."""
    return outline + np.array([x, y], np.float64)


def mirrored(right_half: ArrayLike) -> Points:
    """The outline whose right half, from top to bottom, is given; the axis is x = 0.5."""
    right = np.asarray(right_half, np.float64)
    return np.concatenate([right, (right * (-1, 1) + (1, 0))[::-1]])


def ribbon(path: ArrayLike, width: float) -> Points:
    """The outline of a band of the given width along `path`."""
    line = np.asarray(path, np.float64)
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    aside = along[:, ::-1] * (-1, 1) * (width / 2)
    return np.concatenate([line + aside, (line - aside)[::-1]])


class Pen:
    """Paint shapes on a transparent square."""

    def __init__(self, side: int) -> None:
        self._side = side * _SUPERSAMPLING
        self._canvas = Image.new("RGBA", (self._side, self._side))
        self._draw = ImageDraw.Draw(self._canvas)

    def flat(self, outline: Points, colour: Colour) -> None:
        """Fill `outline` with one colour, without shading."""
        self._draw.polygon(self._pixels(outline), fill=colour)

    def line(self, path: ArrayLike, colour: Colour, width: float = 0.008) -> None:
        """Draw a line of the given width along `path`."""
        pixels = self._pixels(np.asarray(path, np.float64))
        self._draw.line(pixels, colour, round(width * self._side), joint="curve")

    def solid(
        self,
        outline: Points,
        colour: Colour,
        *,
        pattern: str = "plain",
        accent: Colour = (255, 255, 255),
        depth: float = 0.45,
    ) -> None:
        """Fill `outline` like a solid thing lit from the upper left.

        Args:
            outline: The corners.
            colour: The colour in full light.
            pattern: `plain`, `striped`, `banded` or `dotted`.
            accent: The colour of the stripes or dots.
            depth: How much darker the side in shadow is, 0 to 1.
        """
        low = np.floor(outline.min(axis=0) * self._side).astype(int)
        wide, high = (np.ceil(outline.max(axis=0) * self._side).astype(int) - low + 1).tolist()
        mask = Image.new("L", (wide, high))
        ImageDraw.Draw(mask).polygon(self._pixels(outline, low), fill=255)
        surface = self._surface((wide, high), low, colour, pattern, accent)
        light = _light(mask, depth)
        shaded = ImageChops.multiply(surface, Image.merge("RGB", (light, light, light)))
        self._canvas.paste(shaded, (int(low[0]), int(low[1])), mask)

    def finish(self) -> Image.Image:
        """The antialiased RGBA picture, `side` pixels wide and high."""
        return self._canvas.reduce(_SUPERSAMPLING)

    def _pixels(self, outline: Points, origin: ArrayLike = (0, 0)) -> list[tuple[float, float]]:
        return [(x, y) for x, y in (outline * self._side - np.asarray(origin)).tolist()]

    def _surface(
        self,
        size: tuple[int, int],
        origin: NDArray[np.int_],
        colour: Colour,
        pattern: str,
        accent: Colour,
    ) -> Image.Image:
        surface = Image.new("RGB", size, colour)
        draw = ImageDraw.Draw(surface)
        cell = self._side // _PATTERN_CELLS
        (wide, high), (left, top) = size, (-origin % cell).tolist()
        if pattern == "striped":
            for x in range(left, wide, cell):
                draw.rectangle((x, 0, x + cell // 3, high), fill=accent)
        elif pattern == "banded":
            for y in range(top, high, cell):
                draw.rectangle((0, y, wide, y + cell // 3), fill=accent)
        elif pattern == "dotted":
            for row, y in enumerate(range(top - cell, high + cell, cell)):
                for x in range(left - cell * (row % 2) // 2, wide + cell, cell):
                    draw.circle((x, y), cell / 5, fill=accent)
        return surface


def _light(mask: Image.Image, depth: float) -> Image.Image:
    """Brightness over the mask: darker towards the edges, most at the lower right."""
    small = mask.resize((max(2, mask.width // 8), max(2, mask.height // 8)))
    reach = max(1.0, min(small.size) / 7)
    padded = Image.new("L", (small.width + 2, small.height + 2))
    padded.paste(small, (1, 1))
    soft = padded.filter(ImageFilter.GaussianBlur(reach))
    lit = ImageChops.offset(soft, round(-reach / 2), round(-reach / 2))
    lit = lit.point([round(255 * (1 - depth * (1 - level / 255))) for level in range(256)])
    return lit.crop((1, 1, small.width + 1, small.height + 1)).resize(
        mask.size, Image.Resampling.BILINEAR
    )
