"""Clothes, shoes and accessories, drawn in the unit square."""

import numpy as np

from demo.samples.appearance import BLACK, GOLD, WHITE, Appearance
from demo.samples.pen import Pen, box, ellipse, mirrored, mix, ribbon, smooth

__all__ = ["boot", "dress", "handbag", "hat", "sneaker", "t_shirt", "trousers"]


def t_shirt(pen: Pen, look: Appearance) -> None:
    """Draw a T-shirt."""
    wide, hem, sleeve = look.vary(0.2, 0.25), look.vary(0.84, 0.95), look.vary(0.0, 0.1)
    dip = look.vary(0.18, 0.25)
    pen.flat(ellipse(0.5, 0.125, 0.1, 0.045), look.shade)
    tip, under = (0.5 + wide + 0.2, 0.33 + sleeve), (0.5 + wide + 0.1, 0.42 + sleeve)
    neck = smooth([(0.5, dip), (0.56, dip - 0.025), (0.6, 0.12)], closed=False)
    side = [(0.5 + wide - 0.01, 0.17), tip, under, (0.5 + wide, 0.35), (0.5 + wide, hem)]
    look.solid(pen, mirrored([*neck.tolist(), *side]))
    collar = smooth([(0.4, 0.12), (0.44, dip - 0.025), (0.5, dip)], closed=False)
    pen.flat(ribbon(np.concatenate([collar, neck]), 0.022), look.accent)
    for mirror in (1, -1):
        edges = [(tip, under), ((0.5 + wide, 0.36), (0.5 + wide - 0.02, 0.24))]
        for edge in edges:
            pen.line([(0.5 + mirror * (x - 0.5), y) for x, y in edge], look.shade)
    if look.pattern == "plain" and look.chance(0.5):
        pen.flat(ellipse(0.5, 0.45, 0.1, 0.1), look.accent)


def trousers(pen: Pen, look: Appearance) -> None:
    """Draw a pair of trousers."""
    waist, hem, ankle = look.vary(0.13, 0.17), look.vary(0.84, 0.97), look.vary(0.11, 0.19)
    outer = waist + look.vary(0.02, 0.07)
    leg = [(0.5 + waist, 0.05), (0.5 + waist + 0.03, 0.25), (0.5 + outer, hem)]
    look.solid(pen, mirrored([*leg, (0.5 + outer - ankle, hem), (0.505, 0.36)]))
    pen.flat(box(0.5 - waist, 0.04, 0.5 + waist, 0.085), look.shade)
    pen.flat(ellipse(0.5, 0.062, 0.013, 0.013), GOLD)
    pen.line([(0.5, 0.09), (0.5, 0.36)], look.shade)
    for mirror in (1, -1):
        pocket = [(0.5 + mirror * (waist - 0.05), 0.09), (0.5 + mirror * (waist + 0.015), 0.18)]
        pen.line(pocket, look.shade)
        pen.line([(0.5 + mirror * outer, hem - 0.04), (0.5 + mirror * (outer - ankle), hem - 0.04)],
                 look.shade)  # fmt: skip


def dress(pen: Pen, look: Appearance) -> None:
    """Draw a dress."""
    waist, flare, hem = look.vary(0.08, 0.11), look.vary(0.24, 0.38), look.vary(0.8, 0.96)
    bust = waist + 0.045
    top = [(0.5, 0.2), (0.57, 0.13), (0.575, 0.04), (0.6, 0.04), (0.5 + bust, 0.24)]
    skirt = smooth([(0.5 + waist, 0.42), (0.5 + waist + flare * 0.45, 0.62), (0.5 + flare, hem)],
                   closed=False)  # fmt: skip
    folds = [(0.5 + flare * x, hem + 0.025 * (i % 2)) for i, x in enumerate((0.75, 0.5, 0.25))]
    look.solid(pen, mirrored([*top, *skirt.tolist(), *folds]))
    pen.flat(box(0.5 - waist - 0.004, 0.4, 0.5 + waist + 0.004, 0.44), look.accent)
    for x in (-0.55, -0.2, 0.2, 0.55):
        pen.line([(0.5 + waist * x, 0.45), (0.5 + flare * x, hem - 0.04)], look.shade, 0.006)


def sneaker(pen: Pen, look: Appearance) -> None:
    """Draw a sneaker."""
    sole, collar = look.vary(0.07, 0.12), look.vary(0.3, 0.38)
    pen.flat(ellipse(0.27, collar + 0.08, 0.13, 0.05), look.shade)
    upper = [
        (0.07, 0.73), (0.07, 0.73), (0.08, 0.55), (0.1, collar), (0.14, collar - 0.01),
        (0.2, collar + 0.1), (0.3, collar + 0.1), (0.37, collar - 0.03), (0.43, collar - 0.05),
        (0.5, collar + 0.06), (0.66, 0.55), (0.85, 0.6), (0.94, 0.73), (0.94, 0.73),
    ]  # fmt: skip
    look.solid(pen, smooth(upper))
    toe = [(0.76, 0.72), (0.77, 0.64), (0.83, 0.6), (0.9, 0.63), (0.94, 0.72), (0.94, 0.72)]
    pen.solid(smooth(toe), mix(look.accent, WHITE, 0.4))
    for step in range(3):
        x = 0.33 + 0.09 * step
        pen.flat(ribbon([(x, 0.72), (x + 0.07, 0.52)], 0.035), look.accent)
    for step in range(4):
        x, y = 0.43 + 0.05 * step, collar + 0.01 + (0.52 - collar) / 4 * step
        pen.line([(x - 0.035, y + 0.06), (x + 0.02, y - 0.015)], WHITE, 0.02)
    pen.solid(box(0.05, 0.7, 0.96, 0.7 + sole, 0.035), WHITE, depth=0.3)
    pen.line([(0.06, 0.71 + sole * 0.6), (0.95, 0.71 + sole * 0.6)], look.accent, 0.012)


def boot(pen: Pen, look: Appearance) -> None:
    """Draw a boot."""
    top, wide, heel = look.vary(0.05, 0.2), look.vary(0.26, 0.33), look.vary(0.05, 0.1)
    front = 0.24 + wide
    pen.flat(ellipse(0.24 + wide / 2, top, wide / 2, 0.03), look.shade)
    shaft = [(0.23, top), (0.23, top), (front, top), (front, top), (front - 0.03, 0.5),
             (0.66, 0.62), (0.88, 0.69), (0.93, 0.82), (0.93, 0.82), (0.22, 0.82), (0.22, 0.82),
             (0.27, 0.6)]  # fmt: skip
    look.solid(pen, smooth(shaft))
    pen.line([(0.23, top + 0.05), (front, top + 0.05)], look.shade, 0.012)
    if look.chance(0.5):
        for step in range(5):
            y = top + 0.12 + (0.46 - top) / 5 * step
            pen.line([(front - 0.1, y + 0.02), (front - 0.02, y)], look.accent, 0.016)
    else:
        pen.flat(ribbon([(0.25, 0.56), (front + 0.01, 0.52)], 0.035), look.shade)
        pen.flat(box(front - 0.08, 0.5, front - 0.03, 0.56, 0.01), GOLD)
    pen.flat(box(0.21, 0.81, 0.95, 0.86, 0.02), BLACK)
    pen.flat(box(0.21, 0.82, 0.43, 0.86 + heel, 0.01), BLACK)


def hat(pen: Pen, look: Appearance) -> None:
    """Draw a hat."""
    high, wide, brim = look.vary(0.28, 0.42), look.vary(0.2, 0.26), look.vary(0.38, 0.48)
    look.solid(pen, ellipse(0.5, 0.68, brim, look.vary(0.09, 0.13)), depth=0.6)
    base = ellipse(0.5, 0.67, wide, 0.06, arc=(0, 180))
    crown = smooth([(0.5 - wide, 0.67), (0.5 - wide * 0.85, 0.7 - high), (0.42, 0.66 - high),
                    (0.5, 0.69 - high), (0.58, 0.66 - high), (0.5 + wide * 0.85, 0.7 - high),
                    (0.5 + wide, 0.67)], closed=False)  # fmt: skip
    look.solid(pen, np.concatenate([crown, base]))
    band = ellipse(0.5, 0.595, wide * 0.97, 0.06, arc=(180, 0))
    pen.solid(np.concatenate([base, band]), look.accent)


def handbag(pen: Pen, look: Appearance) -> None:
    """Draw a handbag."""
    top, flare, rise = look.vary(0.4, 0.5), look.vary(0.02, 0.1), look.vary(0.22, 0.38)
    wide = look.vary(0.28, 0.34)
    handle = smooth([(0.5 - wide * 0.6, top + 0.04), (0.5 - wide * 0.5, top - rise * 0.7),
                     (0.5, top - rise), (0.5 + wide * 0.5, top - rise * 0.7),
                     (0.5 + wide * 0.6, top + 0.04)], closed=False)  # fmt: skip
    pen.solid(ribbon(handle, 0.045), look.shade)
    side = smooth([(0.5 + wide, top), (0.5 + wide, top), (0.5 + wide + flare, 0.86),
                   (0.5 + wide + flare - 0.05, 0.91)], closed=False)  # fmt: skip
    look.solid(pen, mirrored(side))
    flap = smooth([(0.5 - wide, top), (0.5 - wide, top), (0.5 - wide * 0.85, top + 0.16),
                   (0.5, top + 0.24), (0.5 + wide * 0.85, top + 0.16), (0.5 + wide, top),
                   (0.5 + wide, top)])  # fmt: skip
    pen.solid(flap, mix(look.main, BLACK, 0.15))
    pen.solid(box(0.465, top + 0.19, 0.535, top + 0.27, 0.015), GOLD)
    for mirror in (1, -1):
        pen.flat(ellipse(0.5 + mirror * wide * 0.6, top + 0.05, 0.022, 0.022), GOLD)
