"""Kitchenware, furniture, electronics and leisure goods, drawn in the unit square."""

import numpy as np

from demo.samples.appearance import BLACK, GOLD, WHITE, WOOD, Appearance
from demo.samples.pen import Pen, box, ellipse, mirrored, mix, moved, ribbon, smooth

__all__ = [
    "book",
    "bottle",
    "chair",
    "guitar",
    "headphones",
    "lamp",
    "mug",
    "phone",
    "plant",
    "table",
]


def mug(pen: Pen, look: Appearance) -> None:
    """Draw a mug."""
    wide, top, taper = look.vary(0.2, 0.26), look.vary(0.16, 0.3), look.vary(0.0, 0.05)
    middle, bottom, right = 0.42, 0.84, 0.42 + wide
    handle = smooth([(right - 0.03, top + 0.13), (right + 0.14, top + 0.12),
                     (right + 0.2, (top + bottom) / 2), (right + 0.12, bottom - 0.14),
                     (right - 0.05, bottom - 0.12)], closed=False)  # fmt: skip
    pen.solid(ribbon(handle, look.vary(0.05, 0.07)), look.main)
    rim, inside = (ellipse(middle, top, wide * size, 0.055 * size) for size in (1, 0.9))
    base = ellipse(middle, bottom, wide - taper, 0.055, arc=(0, 180))
    look.solid(pen, np.concatenate([rim[24:], base]), depth=0.6)
    pen.flat(rim, mix(look.main, WHITE, 0.35))
    pen.flat(inside, mix(look.main, BLACK, 0.6))
    if look.chance(0.6):
        pen.flat(ellipse(middle, top + 0.012, wide * 0.82, 0.038), (70, 42, 24))


def bottle(pen: Pen, look: Appearance) -> None:
    """Draw a bottle."""
    wide, neck, shoulder = look.vary(0.11, 0.17), look.vary(0.04, 0.06), look.vary(0.3, 0.42)
    side = [(0.5 + neck, 0.1), (0.5 + neck, 0.1), (0.5 + neck, shoulder - 0.1),
            (0.5 + wide, shoulder + 0.03), (0.5 + wide, 0.55), (0.5 + wide, 0.9),
            (0.5 + wide - 0.02, 0.96), (0.5, 0.96)]  # fmt: skip
    pen.solid(mirrored(smooth(side, closed=False)), look.main, depth=0.65)
    label = look.vary(0.14, 0.26)
    pen.solid(box(0.5 - wide, 0.72 - label / 2, 0.5 + wide, 0.72 + label / 2), look.accent)
    for step, length in enumerate((0.7, 0.45, 0.55)):
        y = 0.68 + 0.04 * step
        pen.line([(0.5 - wide * length, y), (0.5 + wide * length, y)], look.shade, 0.014)
    shine = mix(look.main, WHITE, 0.6)
    pen.flat(ribbon([(0.5 - wide * 0.65, shoulder + 0.08), (0.5 - wide * 0.65, 0.72 - label / 2)],
                    0.02), shine)  # fmt: skip
    pen.solid(box(0.5 - neck - 0.012, 0.04, 0.5 + neck + 0.012, 0.13, 0.012), look.accent)


def chair(pen: Pen, look: Appearance) -> None:
    """Draw a chair."""
    top, seat, lean = look.vary(0.04, 0.16), look.vary(0.48, 0.56), look.vary(0.0, 0.05)
    wood = look.leg_colour()
    corners = [(0.24, seat), (0.64, seat - 0.03), (0.78, seat + 0.1), (0.32, seat + 0.15)]
    for (x, y), foot in zip(corners, (0.84, 0.82, 0.92, 0.97), strict=True):
        inwards = 0.02 if x < 0.5 else -0.02
        pen.solid(ribbon([(x + inwards, y), (x, foot)], 0.035), wood)
    for x, y in corners[:2]:
        pen.solid(ribbon([(x + 0.02 - lean, top), (x + 0.02, y + 0.02)], 0.035), wood)
    left, right = 0.25 - lean, 0.67 - lean
    if look.chance(0.5):
        panel = box(left, top, right, top + look.vary(0.2, 0.3), 0.04)
        look.solid(pen, panel)
    else:
        for step in range(3):
            y = top + 0.02 + 0.11 * step
            look.solid(pen, box(left, y, right, y + 0.06, 0.02))
    cushion = np.array(corners)
    pen.flat(moved(cushion, 0, 0.04), look.shade)
    pen.flat(np.array([*corners[2:], *[(x, y + 0.04) for x, y in corners[:1:-1]]]), look.shade)
    look.solid(pen, cushion, depth=0.25)


def table(pen: Pen, look: Appearance) -> None:
    """Draw a table."""
    top, wide = look.vary(0.3, 0.42), look.vary(0.38, 0.47)
    wood = look.leg_colour()
    if look.chance(0.4):
        plate, feet = (
            ellipse(0.5, top, wide, 0.12),
            [(-0.5, 0.84), (0.5, 0.84), (-0.3, 0.94), (0.3, 0.94)],
        )
    else:
        skew = look.vary(0.06, 0.14)
        plate = np.array(
            [
                (0.5 - wide + skew, top - 0.1),
                (0.5 + wide - 0.02, top - 0.1),
                (0.5 + wide - skew, top + 0.12),
                (0.5 - wide, top + 0.12),
            ]
        )
        feet = [(-0.7, 0.8), (0.92, 0.8), (-0.95, 0.96), (0.7, 0.96)]
    for side, foot in feet:
        x = 0.5 + side * wide
        pen.solid(ribbon([(x, top + (foot - 0.88) * 1.2), (x, foot)], 0.045), wood)
    pen.solid(moved(plate, 0, 0.045), mix(look.main, BLACK, 0.35))
    pen.solid(plate, look.main, depth=0.2)
    if look.chance(0.3):
        pen.flat(ribbon([plate[0], plate[0] * 0.5 + plate[-1] * 0.5], 0.01), look.shade)


def lamp(pen: Pen, look: Appearance) -> None:
    """Draw a table lamp."""
    narrow, wide, hem = look.vary(0.1, 0.18), look.vary(0.22, 0.32), look.vary(0.38, 0.5)
    metal = look.accent
    pen.solid(ellipse(0.5, 0.92, look.vary(0.13, 0.2), 0.045), metal)
    if look.chance(0.5):
        body = [
            (0.5, hem),
            (0.525, hem),
            (0.53, hem + 0.08),
            (0.6, 0.74),
            (0.57, 0.88),
            (0.52, 0.92),
        ]
        pen.solid(mirrored(smooth(body, closed=False)), metal)
    else:
        pen.solid(box(0.48, hem, 0.52, 0.92), metal)
    shade = mirrored([(0.5 + narrow, 0.07), (0.5 + wide, hem)])
    look.solid(
        pen, np.concatenate([shade[:2], ellipse(0.5, hem, wide, 0.03, arc=(0, 180)), shade[2:]])
    )
    pen.flat(ellipse(0.5, 0.07, narrow, 0.018), mix(look.main, (255, 240, 190), 0.75))


def headphones(pen: Pen, look: Appearance) -> None:
    """Draw a pair of headphones."""
    wide, top, cup = look.vary(0.27, 0.35), look.vary(0.08, 0.2), look.vary(0.12, 0.16)
    arch = ellipse(0.5, 0.6, wide, 0.6 - top, arc=(180, 360))
    pen.solid(ribbon(arch, 0.06), look.main)
    pen.solid(ribbon(moved(arch[16:-16], 0, 0.035), 0.05), look.shade)
    for mirror in (1, -1):
        x = 0.5 + mirror * wide
        pen.solid(ellipse(x - mirror * 0.055, 0.68, 0.055, cup), BLACK)
        pen.solid(ellipse(x + mirror * 0.02, 0.68, 0.075, cup * 1.08), look.main)
        pen.solid(ellipse(x + mirror * 0.035, 0.68, 0.04, cup * 0.6), look.accent)
    if look.chance(0.4):
        cable = [(0.5 - wide, 0.84), (0.5 - wide, 0.92), (0.45, 0.9), (0.55, 0.96), (0.7, 0.94)]
        pen.line(smooth(cable, closed=False), BLACK, 0.014)


def phone(pen: Pen, look: Appearance) -> None:
    """Draw a smartphone."""
    wide, top, edge = look.vary(0.2, 0.24), look.vary(0.04, 0.1), look.vary(0.012, 0.03)
    left, right, bottom = 0.5 - wide, 0.5 + wide, 1 - top
    pen.solid(box(left, top, right, bottom, 0.05), mix(look.accent, BLACK, 0.5), depth=0.2)
    pen.flat(box(left + 0.01, top + 0.01, right - 0.01, bottom - 0.01, 0.045), BLACK)
    screen = box(left + edge, top + edge + 0.02, right - edge, bottom - edge - 0.02, 0.03)
    pen.solid(screen, look.main, depth=0.6)
    pen.flat(box(0.45, top + 0.016, 0.55, top + 0.034, 0.009), BLACK)
    cell = 2 * (wide - edge) / 4
    for row in range(5):
        for column in range(4):
            x, y = left + edge + cell * (column + 0.5), top + 0.3 + cell * 1.1 * row
            if y < bottom - 0.2:
                icon = mix(look.accent, WHITE, look.vary(0.1, 0.9))
                pen.flat(box(x - 0.03, y - 0.03, x + 0.03, y + 0.03, 0.014), icon)
    pen.flat(box(0.4, top + 0.13, 0.6, top + 0.17), WHITE)
    for column in range(4):
        x = left + edge + cell * (column + 0.5)
        pen.flat(box(x - 0.03, bottom - 0.13, x + 0.03, bottom - 0.07, 0.014), WHITE)


def book(pen: Pen, look: Appearance) -> None:
    """Draw a book."""
    wide, top, thick = look.vary(0.25, 0.32), look.vary(0.07, 0.16), look.vary(0.03, 0.07)
    left, right, bottom = 0.47 - wide, 0.47 + wide, 0.93 - top
    back = np.array(
        [
            (left, bottom),
            (right, bottom),
            (right, top),
            (right + thick, top + thick),
            (right + thick, bottom + thick),
            (left + thick, bottom + thick),
        ]
    )
    pen.flat(back, look.shade)
    for step in range(1, 5):
        shift = thick * step / 5
        leaf = mix(WHITE, BLACK, 0.08 + 0.12 * (step % 2))
        edge = [
            (left + shift + 0.01, bottom + shift),
            (right + shift, bottom + shift),
            (right + shift, top + shift + 0.01),
        ]
        pen.line(edge, leaf, thick / 5)
    look.solid(pen, box(left, top, right, bottom, 0.008), depth=0.2)
    pen.flat(box(left, top, left + 0.05, bottom), look.shade)
    middle = (left + right + 0.05) / 2
    pen.flat(box(left + 0.1, top + 0.08, right - 0.05, top + 0.28), WHITE)
    for step, length in enumerate((0.75, 0.5)):
        y = top + 0.145 + 0.07 * step
        pen.flat(box(middle - wide * length, y - 0.018, middle + wide * length, y + 0.018), BLACK)
    pen.flat(ellipse(middle, bottom - 0.24, 0.11, 0.11), look.accent)
    pen.flat(box(middle - 0.1, bottom - 0.07, middle + 0.1, bottom - 0.045), look.accent)


def guitar(pen: Pen, look: Appearance) -> None:
    """Draw an acoustic guitar."""
    lower, upper, waist = look.vary(0.19, 0.23), look.vary(0.13, 0.17), look.vary(0.1, 0.13)
    side = [
        (0.5, 0.47),
        (0.5 + upper * 0.7, 0.475),
        (0.5 + upper, 0.55),
        (0.5 + waist, 0.65),
        (0.5 + lower, 0.8),
        (0.5 + lower * 0.7, 0.93),
        (0.5, 0.96),
    ]
    outline = mirrored(smooth(side, closed=False))
    pen.solid(outline, look.shade)
    pen.solid((outline - (0.5, 0.72)) * 0.94 + (0.5, 0.72), look.main)
    pen.flat(ellipse(0.5, 0.66, 0.065, 0.065), look.accent)
    pen.flat(ellipse(0.5, 0.66, 0.052, 0.052), BLACK)
    pen.solid(box(0.475, 0.14, 0.525, 0.62), mix(WOOD, BLACK, 0.5))
    pen.solid(mirrored([(0.535, 0.02), (0.54, 0.13), (0.52, 0.16)]), look.shade)
    for step in range(8):
        pen.line([(0.475, 0.18 + 0.05 * step), (0.525, 0.18 + 0.05 * step)], GOLD, 0.004)
    for step in range(3):
        y = 0.045 + 0.035 * step
        pen.line([(0.44, y), (0.56, y)], WHITE, 0.014)
    pen.flat(box(0.43, 0.81, 0.57, 0.84), mix(WOOD, BLACK, 0.6))
    for x in (0.485, 0.495, 0.505, 0.515):
        pen.line([(x, 0.15), (x, 0.82)], (225, 220, 205), 0.003)


def plant(pen: Pen, look: Appearance) -> None:
    """Draw a plant in a pot."""
    rim, leaves = look.vary(0.62, 0.7), int(look.vary(7, 12))
    for step in range(leaves):
        angle = np.pi * (0.08 + 0.84 * step / (leaves - 1))
        reach, bend = look.vary(0.3, 0.46), look.vary(0.04, 0.12)
        x, y = 0.5 + reach * np.cos(angle), rim - reach * np.sin(angle) * 1.15
        middle = ((0.5 + x) / 2, (rim + y) / 2 - bend)
        green = mix((44, 120, 52), (140, 190, 70), look.vary(0.0, 1.0))
        pen.solid(smooth([(0.5, rim), (middle[0] - 0.05, middle[1]), (x, y),
                          (middle[0] + 0.05, middle[1] + 0.04)]), green)  # fmt: skip
    pot = [(0.34, rim), (0.66, rim), (0.6, 0.95), (0.4, 0.95)]
    pen.solid(np.array(pot), look.main)
    pen.solid(box(0.31, rim - 0.03, 0.69, rim + 0.05), look.shade)
