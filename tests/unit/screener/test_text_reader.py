"""Reading text in photos: drawn ones whose text is known."""

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from demo.samples.products import KINDS
from demo.samples.scenes import draw_scene
from seer_model.photos.square import Pixels
from seer_model.screener.text_reader import TextReader

TEXTS = ("Tel. 0171 2345678", "name@mail.de", "¿Cuánto? Größe 38")


@pytest.fixture(scope="module")
def reader() -> TextReader:
    return TextReader(threads=2)


def written(*texts: str, size: int = 32) -> Pixels:
    image = draw_scene(KINDS[0], 1, np.random.default_rng(1)).resize((853, 640))
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
    for place, text in enumerate(texts):
        ImageDraw.Draw(image).text(
            (60, 60 + 90 * place), text, "white", font, stroke_width=2, stroke_fill="black"
        )
    return np.asarray(image)


def test_lines_are_read_from_top_to_bottom_with_their_share(reader: TextReader) -> None:
    lines = reader.read(written(*TEXTS))
    assert [line.line.replace(" ", "") for line in lines] == [t.replace(" ", "") for t in TEXTS]
    for line in lines:
        assert line.score > 0.8
        assert 0.005 < line.share < 0.06


def test_the_same_photo_gives_the_same_text(reader: TextReader) -> None:
    pixels = written(*TEXTS)
    again = TextReader(threads=1)
    reader.read(np.asarray(Image.fromarray(pixels).resize((200, 150))))
    assert reader.read(pixels) == again.read(pixels)


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (2000, 17), (16, 16)])
def test_photos_of_any_shape_are_read(reader: TextReader, shape: tuple[int, int]) -> None:
    assert reader.read(np.zeros((*shape, 3), np.uint8)) == []
