"""Backdrops of home photos: rooms, table tops, beds, carpets, tiles, and the clutter on them."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.samples.appearance import BLACK, WHITE, WOOD, draw_colour
from demo.samples.pen import Colour, Pen, box, ellipse, mix, ribbon, smooth

__all__ = ["add_clutter", "lying_backdrop", "room"]

_Tone = NDArray[np.float32]
"""Brightness of a surface relative to its colour, of shape `(height, width)`."""

_WALLS: tuple[Colour, ...] = (
    (226, 220, 208), (205, 212, 214), (198, 186, 170), (176, 190, 172), (222, 205, 196),
    (150, 160, 172), (120, 128, 122), (238, 236, 232),
)  # fmt: skip


def room(size: tuple[int, int], rng: np.random.Generator) -> tuple[Image.Image, int]:
    """Draw a wall above a floor or table top.

    Args:
        size: Width and height in pixels.
        rng: The random generator.

    Returns:
        The picture, and the row where the wall ends.
    """
    width, height = size
    horizon = round(height * rng.uniform(0.5, 0.72))
    scene = _wall(size, rng)
    if rng.random() < 0.4:
        _hang_picture(scene, horizon, rng)
    floor = (width, height - horizon)
    lower = _boards(floor, rng) if rng.random() < 0.65 else _carpet(floor, rng)
    scene.paste(lower, (0, horizon))
    if rng.random() < 0.6:
        skirting = mix(WHITE, WOOD, rng.choice([0.0, 0.1, 0.8]))
        thickness = round(height * rng.uniform(0.015, 0.05))
        scene.paste(skirting, (0, horizon - thickness, width, horizon))
    scene.paste(mix(BLACK, WOOD, 0.4), (0, horizon, width, horizon + 2))
    return scene, horizon


def lying_backdrop(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Draw a surface that a product lies on or hangs from, filling the picture."""
    surfaces = (_boards, _bedding, _bedding, _carpet, _tiles, _wall)
    return surfaces[int(rng.integers(len(surfaces)))](size, rng)


def add_clutter(scene: Image.Image, top: int, rng: np.random.Generator) -> None:
    """Put up to three everyday things near the edges of `scene`, below row `top`, in place."""
    for _ in range(int(rng.integers(0, 4))):
        side = round(min(scene.size) * rng.uniform(0.16, 0.36))
        pen = Pen(side)
        _CLUTTER[int(rng.integers(len(_CLUTTER)))](pen, draw_colour(rng))
        thing = pen.finish().rotate(rng.uniform(0, 360), Image.Resampling.BICUBIC)
        along, across = rng.uniform(-0.1, 1.0), float(rng.choice([-0.12, 0.9]))
        x, y = (along, across) if rng.random() < 0.5 else (across, along)
        low = max(top, round(y * scene.height) - side // 4)
        place = (round(x * scene.width) - side // 4, low)
        shadow = thing.getchannel("A").point([level * 2 // 5 for level in range(256)])
        scene.paste(BLACK, (place[0] + 5, place[1] + 6), shadow)
        scene.paste(thing, place, thing)


def _cloud(size: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator) -> _Tone:
    """Draw smooth noise (mean 0, deviation about 1) with `cells` (across, down) bumps."""
    noise = rng.standard_normal((cells[1] + 1, cells[0] + 1), dtype=np.float32)
    return np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))


def _tinted(tone: _Tone, colour: Colour) -> Image.Image:
    levels = (np.clip(tone, 0, 1.6) * 160).astype(np.uint8)
    grey = Image.fromarray(levels)
    tables = [
        [min(255, round(level / 160 * channel)) for level in range(256)] for channel in colour
    ]
    return Image.merge("RGB", [grey.point(table) for table in tables])


def _wall(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    width, height = size
    slope = np.linspace(1.05, rng.uniform(0.7, 0.95), width, dtype=np.float32)
    tone = slope[:: int(rng.choice([-1, 1]))] + 0.015 * _cloud(size, (width // 6, height // 6), rng)
    if rng.random() < 0.25:
        period = int(rng.integers(24, 90))
        tone = tone * np.where(np.arange(width) % period < period // 2, 1.0, 0.9)
    return _tinted(tone.astype(np.float32), _WALLS[int(rng.integers(len(_WALLS)))])


def _boards(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    height = size[1]
    board = int(rng.integers(36, 120))
    rows = np.arange(height)
    tints = rng.normal(1, 0.07, height // board + 1)[rows // board]
    seams = np.where(rows % board < 2, 0.6, 1.0)
    grain = _cloud(size, (5, max(4, height // 3)), rng) + _cloud(size, (3, height // 12 + 2), rng)
    tone = (tints * seams)[:, None] * (1 + 0.06 * grain)
    lightness = float(rng.uniform(-0.5, 0.6))
    return _tinted(tone, mix(WOOD, WHITE if lightness > 0 else BLACK, abs(lightness)))


def _bedding(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    slope = np.linspace(0, rng.uniform(8, 16), size[0], dtype=np.float32)
    folds = np.sin(slope + 1.3 * _cloud(size, (3, 3), rng)) * _cloud(size, (3, 4), rng)
    tone = 0.88 + 0.07 * folds + 0.04 * _cloud(size, (9, 7), rng)
    if rng.random() < 0.35:
        period = int(rng.integers(30, 80))
        across, down = (np.arange(length) % period < period // 3 for length in size)
        tone = tone * np.where(across, 0.9, 1.0) * np.where(down, 0.9, 1.0)[:, None]
    return _tinted(tone.astype(np.float32), mix(draw_colour(rng), WHITE, rng.uniform(0.4, 0.85)))


def _carpet(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    width, height = size
    pile = _cloud(size, (width // 3, height // 3), rng)
    tone = 0.85 + 0.11 * pile + 0.05 * _cloud(size, (8, 6), rng)
    return _tinted(tone, mix(draw_colour(rng), (150, 140, 130), 0.6))


def _tiles(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    width, height = size
    tile = int(rng.integers(70, 180))
    x, y = np.arange(width), np.arange(height)
    grout = (x % tile < 4) | (y % tile < 4)[:, None]
    tints = rng.normal(1, 0.04, (height // tile + 1, width // tile + 1))
    tone = tints[y // tile][:, x // tile] * (0.95 + 0.03 * _cloud(size, (20, 15), rng))
    colour = mix(_WALLS[int(rng.integers(len(_WALLS)))], BLACK, rng.uniform(0, 0.4))
    return _tinted(np.where(grout, 0.72, tone).astype(np.float32), colour)


def _hang_picture(scene: Image.Image, horizon: int, rng: np.random.Generator) -> None:
    side = round(horizon * rng.uniform(0.35, 0.6))
    pen = Pen(side)
    pen.solid(box(0.05, 0.05, 0.95, 0.95), mix(BLACK, WOOD, rng.uniform(0, 1)), depth=0.2)
    pen.flat(box(0.12, 0.12, 0.88, 0.88), WHITE)
    pen.flat(box(0.2, 0.2, 0.8, 0.8), draw_colour(rng))
    pen.flat(smooth([(0.2, 0.8), (0.2, 0.8), (0.3, 0.6), (0.5, 0.65), (0.65, 0.45), (0.8, 0.6),
                     (0.8, 0.8), (0.8, 0.8)]), draw_colour(rng))  # fmt: skip
    picture = pen.finish()
    x = round(scene.width * float(rng.choice([rng.uniform(-0.1, 0.1), rng.uniform(0.7, 0.95)])))
    scene.paste(picture, (x, round(horizon * rng.uniform(-0.1, 0.15))), picture)


def _paper(pen: Pen, colour: Colour) -> None:
    pen.flat(box(0.15, 0.05, 0.85, 0.95), mix(WHITE, colour, 0.08))
    for step in range(8):
        pen.line([(0.25, 0.2 + 0.08 * step), (0.75, 0.2 + 0.08 * step)], (150, 150, 155), 0.014)


def _pencil(pen: Pen, colour: Colour) -> None:
    pen.solid(box(0.46, 0.1, 0.54, 0.8), colour)
    pen.flat(np.array([(0.46, 0.8), (0.54, 0.8), (0.5, 0.94)]), (222, 190, 140))


def _cable(pen: Pen, colour: Colour) -> None:
    path = [(0.05, 0.3), (0.3, 0.2), (0.6, 0.45), (0.35, 0.7), (0.6, 0.85), (0.95, 0.6)]
    pen.line(smooth(path, closed=False), mix(colour, BLACK, 0.6), 0.03)


def _ball(pen: Pen, colour: Colour) -> None:
    pen.solid(ellipse(0.5, 0.5, 0.32, 0.32), colour, depth=0.7)


def _carton(pen: Pen, colour: Colour) -> None:
    cardboard = mix((186, 146, 100), colour, 0.12)
    pen.solid(box(0.1, 0.2, 0.9, 0.85), cardboard, depth=0.15)
    pen.flat(box(0.1, 0.48, 0.9, 0.56), mix(cardboard, WHITE, 0.4))


def _plant(pen: Pen, colour: Colour) -> None:
    green = mix((62, 118, 58), colour, 0.15)
    for angle in np.radians(range(0, 360, 45)):
        tip = np.array([np.cos(angle), np.sin(angle)])
        aside = tip[::-1] * (-0.09, 0.09)
        centre = np.array([0.5, 0.5])
        middle = centre + 0.24 * tip
        pen.solid(smooth([centre, middle + aside, centre + 0.45 * tip, middle - aside]), green)


def _strap(pen: Pen, colour: Colour) -> None:
    path = smooth([(0.02, 0.5), (0.3, 0.35), (0.6, 0.6), (0.98, 0.45)], closed=False)
    pen.solid(ribbon(path, 0.12), colour)


_CLUTTER = (_paper, _pencil, _cable, _ball, _carton, _plant, _strap)
