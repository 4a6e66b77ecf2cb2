"""Colours of a subject: named, with shares, without what is behind it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seer_model.photos.colours import COLOURS, subject_colours
from seer_model.photos.square import Pixels

RED, BLUE, WHITE, GREEN = (200, 30, 40), (30, 60, 190), (245, 245, 245), (40, 150, 60)


def striped(background: tuple[int, ...], *colours: tuple[int, ...]) -> Pixels:
    """A square of equal stripes on a background."""
    pixels = np.empty((120, 160, 3), np.uint8)
    pixels[:] = background
    for stripe, colour in zip(
        np.array_split(np.arange(40, 120), len(colours)), colours, strict=True
    ):
        pixels[20:100, stripe] = colour
    return pixels


@pytest.mark.parametrize(
    ("background", "colours", "names"),
    [
        (WHITE, [RED], ["red"]),
        (RED, [WHITE], ["white"]),
        (WHITE, [RED, BLUE], ["blue", "red"]),
        (GREEN, [RED, BLUE, WHITE], ["blue", "red", "white"]),
    ],
)
def test_the_subjects_colours_without_the_background(
    background: tuple[int, ...], colours: list[tuple[int, ...]], names: list[str]
) -> None:
    found = subject_colours(striped(background, *colours))
    assert sorted(colour.name for colour in found) == names
    assert sum(colour.share for colour in found) == pytest.approx(1, abs=0.01)
    assert [colour.share for colour in found] == sorted(
        (colour.share for colour in found), reverse=True
    )


def test_goods_that_fill_the_photo_are_no_background() -> None:
    (only,) = subject_colours(np.full((90, 90, 3), GREEN, np.uint8))
    assert only == ("green", 1.0)


def test_a_lamp_tints_white_and_it_stays_white() -> None:
    assert subject_colours(striped((60, 40, 30), (235, 225, 205)))[0].name == "white"


@given(st.integers(1, 150), st.integers(1, 150), st.integers(0, 2**32 - 1))
def test_any_photo_has_a_colour(rows: int, columns: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
    found = subject_colours(pixels)
    assert 1 <= len(found) <= 3
    assert {colour.name for colour in found} <= set(COLOURS)
    assert all(0 < colour.share <= 1.0000001 for colour in found)
