"""Name the colours of a photo's subject, in the eleven basic colour terms (Berlin and Kay 1969).

Pixels are judged in CIELAB (D65), by lightness, chroma and hue, after the photo's light is raised
to a common white. What is like the photo's border is background, and the middle counts more.
"""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from seer_model.photos.square import Pixels

__all__ = ["COLOURED_BY", "COLOURS", "Colour", "subject_colours"]

COLOURED_BY = "basic colour terms 2"
"""Names the limits below: another number for others."""

COLOURS = (
    *("black", "white", "grey", "red", "orange", "yellow", "green", "blue", "purple", "pink"),
    "brown",
)
"""The names."""

_BLACK, _WHITE, _GREY, _RED, _ORANGE, _YELLOW, _GREEN, _BLUE, _PURPLE, _PINK, _BROWN = range(11)

_SIDE = 96
_MOST_NAMED, _LEAST_SHARE = 3, 0.2

# Hues in degrees of CIELAB, where each begins; red goes on after 345.
_HUES = (42.0, 75.0, 108.0, 200.0, 292.0, 345.0)
_HUE_NAMES = (_RED, _ORANGE, _YELLOW, _GREEN, _BLUE, _PURPLE, _RED)
_PINK_FROM, _PINK_TO, _LIGHT_PINK, _VIVID_PINK = 325.0, 40.0, 62.0, 35.0
_PALE, _VIVID_BLUE_TO = 60.0, 310.0
_BROWN_FROM, _BROWN_TO, _BROWN_LIGHTNESS, _BROWN_CHROMA, _DULL = 25.0, 90.0, 52.0, 45.0, 24.0
# Lamps and walls tint white things, so warm hues need more chroma to be a colour.
_WARM_FROM, _WARM_TO, _LEAST_WARM, _LEAST_CHROMA = 40.0, 110.0, 15.0, 9.0
_DARK, _LIGHT, _DARKEST, _DARKEST_CHROMA = 32.0, 74.0, 22.0, 18.0
_WHITE_LIGHTNESS, _MOST_RAISED = 92.0, 1.15

_BORDER, _BACKGROUNDS, _BACKGROUND_SHARE = 0.08, 3, 0.15
_ALIKE, _STILL_ALIKE = 25.0, 30.0
_MIDDLE, _LEAST_SUBJECT = 0.27, 0.15

Floats = npt.NDArray[np.float32]


class Colour(NamedTuple):
    """A colour of the subject, and the share of the subject that has it."""

    name: str
    share: float


def subject_colours(pixels: Pixels) -> list[Colour]:
    """Name the one to three main colours of a photo's subject, the largest first.

    Args:
        pixels: uint8, (rows, columns, 3), of any size.

    Returns:
        The largest colour, and others that at least a fifth of the subject has.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    lab = _as_lab(np.asarray(image))
    weights = np.bincount(_names(lab).ravel(), _subject(lab).ravel(), len(COLOURS))
    shares = weights / weights.sum()
    largest = np.argsort(-shares, kind="stable")[:_MOST_NAMED]
    return [
        Colour(COLOURS[name], float(shares[name]))
        for place, name in enumerate(largest)
        if not place or shares[name] >= _LEAST_SHARE
    ]


def _as_lab(pixels: Pixels) -> Floats:
    """CIELAB of sRGB pixels (IEC 61966-2-1; CIE 015:2018), white point D65."""
    values = pixels.astype(np.float32) / 255
    return np.asarray(cv2.cvtColor(values, cv2.COLOR_RGB2LAB), np.float32)


def _names(lab: Floats) -> npt.NDArray[np.int64]:
    """The colour of each pixel, by its place in `COLOURS`."""
    lightness, a, b = np.moveaxis(lab, -1, 0)
    raised = np.clip(_WHITE_LIGHTNESS / max(np.percentile(lightness, 95), 1), 1, _MOST_RAISED)
    lightness = np.minimum(lightness * raised, 100)
    chroma = np.hypot(a, b) * np.sqrt(raised)
    hue = np.degrees(np.arctan2(b, a)) % 360
    names = np.array(_HUE_NAMES)[np.searchsorted(_HUES, hue, side="right")]
    reddish = (hue < _PINK_TO) | (hue >= _PINK_FROM)
    vivid = (hue >= _PINK_FROM) & (hue < _HUES[-1]) & (chroma > _VIVID_PINK)
    pale = (lightness > _LIGHT_PINK) & (chroma < _PALE)
    names[reddish & (pale | vivid)] = _PINK
    # The blue of screens has a hue of 306.
    names[(hue >= _HUES[4]) & (hue < _VIVID_BLUE_TO) & (chroma > _PALE)] = _BLUE
    dark = (lightness < _BROWN_LIGHTNESS) & (chroma < _BROWN_CHROMA)
    names[(hue >= _BROWN_FROM) & (hue < _BROWN_TO) & (dark | (chroma < _DULL))] = _BROWN
    warm = (hue >= _WARM_FROM) & (hue < _WARM_TO)
    greys = np.select([lightness < _DARK, lightness > _LIGHT], [_BLACK, _WHITE], _GREY)
    names = np.where(chroma < np.where(warm, _LEAST_WARM, _LEAST_CHROMA), greys, names)
    names[(lightness < _DARKEST) & (chroma < _DARKEST_CHROMA)] = _BLACK
    return names


def _subject(lab: Floats) -> Floats:
    """How much each pixel belongs to the subject: the middle does, without the background."""
    rows, columns = lab.shape[:2]
    background = _background(lab)
    down, across = (np.linspace(-0.5, 0.5, length, dtype=np.float32) for length in (rows, columns))
    middle = np.exp(-(down[:, None] ** 2 + across[None, :] ** 2) / (2 * _MIDDLE**2))
    subject = middle * ~background
    # Goods that fill the photo are like its border.
    inside = middle > 0.5
    enough = subject[inside].sum() > _LEAST_SUBJECT * middle[inside].sum()
    return np.asarray(subject if enough else middle)


def _background(lab: Floats) -> npt.NDArray[np.bool_]:
    """Pixels like the most common colours of the border."""
    rows, columns = lab.shape[:2]
    width = max(2, round(_BORDER * min(rows, columns)))
    is_border = np.ones((rows, columns), np.bool_)
    is_border[width:-width, width:-width] = False
    border = rest = lab[is_border]
    background = np.zeros((rows, columns), np.bool_)
    for _ in range(_BACKGROUNDS):
        if len(rest) < _BACKGROUND_SHARE * len(border):
            break
        some = rest[:: max(1, len(rest) // 60)]
        alike = _distances(some, rest) < _ALIKE
        densest = int(alike.sum(axis=1).argmax())
        if alike[densest].sum() < _BACKGROUND_SHARE * len(border):
            break
        colour = rest[alike[densest]].mean(axis=0)
        background |= _distances(colour[None], lab.reshape(-1, 3)).reshape(rows, columns) < (
            _STILL_ALIKE
        )
        rest = rest[~alike[densest]]
    return background


def _distances(some: Floats, others: Floats) -> Floats:
    """Distance of each of some colours, (m, 3), from each of others, (n, 3)."""
    squares = (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * some @ others.T
    return np.asarray(np.sqrt(np.maximum(squares, 0)))
