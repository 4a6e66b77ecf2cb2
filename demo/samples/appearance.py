"""The appearance of a product: its colours, its pattern and its proportions."""

import colorsys
from dataclasses import dataclass

import numpy as np

from demo.samples.pen import Colour, Pen, Points, mix

__all__ = ["BLACK", "GOLD", "WHITE", "WOOD", "Appearance", "draw_colour"]

BLACK: Colour = (28, 28, 32)
WHITE: Colour = (246, 245, 240)
GOLD: Colour = (205, 170, 90)
WOOD: Colour = (150, 104, 62)
_NEUTRALS: tuple[Colour, ...] = (
    (38, 38, 44), (238, 236, 230), (140, 142, 146), (196, 178, 148), (36, 46, 84), (110, 74, 50),
)  # fmt: skip
_PATTERNS = ("plain", "striped", "banded", "dotted")


def draw_colour(rng: np.random.Generator) -> Colour:
    """Draw a colour at random; every third is a neutral one."""
    if rng.random() < 0.3:
        return _NEUTRALS[int(rng.integers(len(_NEUTRALS)))]
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.35, 0.9), rng.uniform(0.4, 0.95))
    red, green, blue = (round(255 * channel) for channel in rgb)
    return red, green, blue


@dataclass(frozen=True)
class Appearance:
    """One product's colours and pattern, and the source of its proportions."""

    rng: np.random.Generator
    main: Colour
    accent: Colour
    pattern: str

    @classmethod
    def of(cls, seed: int) -> "Appearance":
        """Derive an appearance from a seed, with an accent that stands out from the main colour."""
        rng = np.random.default_rng(seed)
        main = draw_colour(rng)
        accents = [draw_colour(rng) for _ in range(4)]
        accent = max(accents, key=lambda colour: abs(sum(colour) - sum(main)))
        pattern = str(rng.choice(_PATTERNS, p=(0.55, 0.15, 0.15, 0.15)))
        return cls(rng, main, accent, pattern)

    @property
    def shade(self) -> Colour:
        """The main colour in shadow."""
        return mix(self.main, BLACK, 0.4)

    def vary(self, low: float, high: float) -> float:
        """Draw a proportion between `low` and `high`."""
        return float(self.rng.uniform(low, high))

    def chance(self, share: float) -> bool:
        """Draw whether the product has a feature that a `share` of its kind has."""
        return bool(self.rng.random() < share)

    def leg_colour(self) -> Colour:
        """Draw a colour for the legs of furniture: wood, metal or the accent."""
        choices = (WOOD, mix(WOOD, BLACK, 0.5), mix(WOOD, WHITE, 0.45), BLACK, self.accent)
        return choices[int(self.rng.integers(len(choices)))]

    def solid(self, pen: Pen, outline: Points, depth: float = 0.45) -> None:
        """Paint `outline` in the main colour and the pattern."""
        pen.solid(outline, self.main, pattern=self.pattern, accent=self.accent, depth=depth)
