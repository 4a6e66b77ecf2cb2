"""Photos that are the same one, edited, resemble each other; others do not."""

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from demo.samples.products import KINDS
from demo.samples.scenes import draw_scene
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.pixels import prepare_photo
from seer_model.photos.resemblance import SIDE, Searchable, as_grey, resemblance
from tests.support.edited_photos import as_jpeg, edits

LEAST = 0.95


def searchable(data: bytes) -> Searchable:
    return Searchable(as_grey(prepare_photo(data, SIDE, PhotoLimits())))


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    return [draw_scene(KINDS[n % 5], n, np.random.default_rng(n)) for n in range(6)]


def test_an_edited_photo_resembles_its_original(scenes: list[Image.Image]) -> None:
    for scene in scenes[:3]:
        original = searchable(as_jpeg(scene))
        found = {name: resemblance(original, searchable(data)) for name, data in edits(scene)}
        assert all(score >= LEAST for score in found.values()), found


def test_other_photos_do_not(scenes: list[Image.Image]) -> None:
    photos = [searchable(as_jpeg(scene)) for scene in scenes]
    assert max(resemblance(*pair) for pair in pairwise(photos)) < LEAST


def test_order_does_not_matter(scenes: list[Image.Image]) -> None:
    one, other = (searchable(as_jpeg(scene)) for scene in scenes[:2])
    assert resemblance(one, other) == resemblance(other, one)


def test_in_a_flat_photo_nothing_is_found(scenes: list[Image.Image]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (200, 200), "grey").save(buffer, "PNG")
    flat = searchable(buffer.getvalue())
    assert resemblance(flat, searchable(as_jpeg(scenes[0]))) < 0.5
    assert resemblance(flat, flat) < 0.5
