"""What is measured on a photo, on photos that are known to have it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFilter

from seer_model.photos.attributes import ATTRIBUTES, photo_attributes
from seer_model.photos.square import Pixels


def photo(background: int, colour: tuple[int, int, int], share: float, side: int = 200) -> Pixels:
    """A square of one colour that covers a share of a grey background."""
    pixels = np.full((side, side, 3), background, np.uint8)
    edge = round(side * (1 - share**0.5) / 2)
    pixels[edge : side - edge, edge : side - edge] = colour
    return pixels


@pytest.mark.parametrize(("background", "name"), [(30, "dark"), (110, "medium"), (240, "bright")])
def test_brightness(background: int, name: str) -> None:
    grey = (background, background, background)
    assert photo_attributes(photo(background, grey, 0.5))["brightness"] == name


@pytest.mark.parametrize(("share", "name"), [(0.2, "small"), (0.6, "medium"), (0.8, "large")])
def test_the_share_unlike_the_border(share: float, name: str) -> None:
    assert photo_attributes(photo(120, (220, 40, 40), share))["object"] == name


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((220, 20, 20), "red"),
        ((230, 130, 20), "orange"),
        ((230, 220, 20), "yellow"),
        ((20, 200, 40), "green"),
        ((20, 150, 210), "blue"),
        ((20, 40, 220), "blue"),
        ((110, 40, 150), "purple"),
        ((250, 150, 180), "pink"),
        ((110, 60, 20), "brown"),
        ((230, 20, 60), "red"),
        ((5, 5, 5), "black"),
        ((150, 150, 150), "grey"),
        ((250, 250, 250), "white"),
    ],
)
def test_colour_is_the_objects(colour: tuple[int, int, int], name: str) -> None:
    assert photo_attributes(photo(110, colour, 0.3))["colour"] == name


def test_blur_lowers_sharpness_and_resolution_does_not() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    sharp = Image.fromarray(noise).resize((128, 128), Image.Resampling.NEAREST)
    blurred = sharp.filter(ImageFilter.GaussianBlur(3))
    assert photo_attributes(np.asarray(sharp))["sharpness"] == "high"
    assert photo_attributes(np.asarray(blurred))["sharpness"] == "low"
    large = np.asarray(sharp.resize((512, 512), Image.Resampling.NEAREST))
    assert photo_attributes(large)["sharpness"] == "high"


@given(arrays(np.uint8, st.sampled_from([(1, 1, 3), (2, 2, 3), (20, 20, 3)])))
def test_any_photo_has_every_attribute(square: Pixels) -> None:
    assert tuple(photo_attributes(square)) == ATTRIBUTES
