"""Colour profiles written by hand (ICC.1:2022), as those of vendors may not be redistributed."""

import struct
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from PIL import Image, ImageCms

Matrix = Sequence[tuple[float, float, float]]

# XYZ of red, green and blue, adapted to D50.
DISPLAY_P3 = (
    (0.51512, 0.24120, -0.00105),
    (0.29198, 0.69225, 0.04189),
    (0.15710, 0.06657, 0.78407),
)
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*values)


SRGB_CURVE = (
    b"para\0\0\0\0"
    + struct.pack(">2H", 3, 0)
    + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
)


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def profile(space: bytes, tags: Mapping[bytes, bytes], connection: bytes = b"XYZ ") -> bytes:
    """A display profile; for CMYK, a printer profile."""
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    table, bodies = struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += name + struct.pack(">2I", 132 + 12 * len(tags) + len(bodies), len(body))
        bodies += body + b"\0" * (-len(body) % 4)
    head = b"none" + struct.pack(">I", 0x02400000) + kind + space + connection
    head += (
        struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(0.9642, 1, 0.8249)
    )
    size = 128 + len(table) + len(bodies)
    return (struct.pack(">I", size) + head).ljust(128, b"\0") + table + bodies


def rgb_profile(matrix: Matrix, curve: bytes = SRGB_CURVE) -> bytes:
    colours = {b"%cXYZ" % name: _xyz(values) for name, values in zip(b"rgb", matrix, strict=True)}
    curves = {b"%cTRC" % name: curve for name in b"rgb"}
    return profile(b"RGB ", {b"wtpt": _xyz((0.9642, 1, 0.8249)), **colours, **curves})


def grey_profile(curve: bytes) -> bytes:
    return profile(b"GRAY", {b"wtpt": _xyz((0.9642, 1, 0.8249)), b"kTRC": curve})


def cmyk_profile() -> bytes:
    """A printer with dull inks, far from the naive conversion of CMYK to RGB."""
    ends = np.array([[255, 255, 255], [0, 130, 200], [210, 20, 110], [250, 225, 40]], float) / 255
    grid = []
    for cyan, magenta, yellow, black in product((0, 1), repeat=4):
        light = ends[0].copy()
        for ink, amount in zip(ends[1:], (cyan, magenta, yellow), strict=True):
            light *= ink if amount else 1
        grid.append(light * (0.12 if black else 1))
    lab = ImageCms.createProfile("LAB")
    colours = Image.fromarray(np.rint(np.array([grid]) * 255).astype(np.uint8))
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    stored = np.asarray(ImageCms.applyTransform(colours, to_lab))[0] ^ np.uint8([0, 128, 128])
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += ramp * 4 + stored.tobytes() + ramp * 3
    return profile(b"CMYK", {b"wtpt": _xyz((0.9642, 1, 0.8249)), b"A2B0": table}, b"Lab ")
