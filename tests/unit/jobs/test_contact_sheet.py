import io

import pytest
from PIL import Image

from jobs.pages.contact_sheet import Tile, draw_contact_sheet

GREY = (0xC9, 0xCE, 0xD6)
TILE = 180
CARD_HEIGHT = 236
GAP = 12


def photo(colour: str, size: tuple[int, int] = (40, 30), orientation: int = 1) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, colour).save(file, "PNG", exif=exif)
    return file.getvalue()


def tile(content: bytes | None = None, title: str = "Mug", caption: str = "0.93") -> Tile:
    return Tile(content, title, caption, "#00ff00")


@pytest.mark.parametrize(
    ("tiles", "across", "down"), [(0, 1, 1), (1, 1, 1), (6, 6, 1), (7, 6, 2), (13, 6, 3)]
)
def test_size_follows_from_the_number_of_tiles(tiles: int, across: int, down: int) -> None:
    sheet = draw_contact_sheet([tile()] * tiles)
    assert sheet.mode == "RGB"
    assert sheet.size == (across * (TILE + GAP) + GAP, down * (CARD_HEIGHT + GAP) + GAP)


def test_columns_and_tile_size_are_the_callers() -> None:
    wide = draw_contact_sheet([tile()] * 4, columns=4, tile_size=90)
    narrow = draw_contact_sheet([tile()] * 4, columns=2, tile_size=90)
    assert wide.width > narrow.width
    assert wide.height < narrow.height


def test_a_photo_keeps_its_proportions_inside_the_square() -> None:
    sheet = draw_contact_sheet([tile(photo("red", (40, 20)))])
    assert sheet.getpixel((GAP + TILE // 2, GAP + TILE // 2)) == (255, 0, 0)
    assert sheet.getpixel((GAP + 4, GAP + TILE // 2)) == (255, 0, 0)
    assert sheet.getpixel((GAP + TILE // 2, GAP + TILE // 8)) != (255, 0, 0)


def test_a_photo_is_upright() -> None:
    turned = draw_contact_sheet([tile(photo("red", (40, 20), orientation=6))])
    assert turned.getpixel((GAP + TILE // 2, GAP + 4)) == (255, 0, 0)
    assert turned.getpixel((GAP + 4, GAP + TILE // 2)) != (255, 0, 0)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"not a photo", b"\xff\xd8\xff\xe0 cut", photo("red", (400, 400))[:60]],
    ids=["none", "empty", "text", "jpeg-start", "png-start"],
)
def test_bytes_that_cannot_be_decoded_show_a_grey_box(content: bytes | None) -> None:
    sheet = draw_contact_sheet([tile(content), tile(photo("red"))])
    assert sheet.getpixel((GAP + 10, GAP + 10)) == GREY
    assert sheet.getpixel((GAP + TILE + GAP + TILE // 2, GAP + TILE // 2)) == (255, 0, 0)


def test_the_strip_has_the_colour_of_the_tile() -> None:
    sheet = draw_contact_sheet([tile(photo("red"))])
    assert sheet.getpixel((GAP + TILE // 2, GAP + TILE + 2)) == (0, 255, 0)


@pytest.mark.parametrize(
    "text",
    ["", "W" * 50, "x" * 100_000, "\u670d\u88c5 \U0001f45f \u0645\u0631\u062d\u0628\u0627 " * 9,
     "two\nlines\tand\x00more", "\ud800 alone", "e\u0301" * 300, "$\\frac{$ {} \\undefined $"],
    ids=["empty", "wide", "huge", "no-glyph", "control", "surrogate", "combining", "mathtext"],
)  # fmt: skip
def test_text_of_any_kind_stays_inside_its_tile(text: str) -> None:
    plain = draw_contact_sheet([tile(title="", caption="")])
    sheet = draw_contact_sheet([tile(title=text, caption=text)])
    assert sheet.size == plain.size
    edge = (GAP + TILE - 8, GAP, sheet.width, sheet.height)
    assert sheet.crop(edge).tobytes() == plain.crop(edge).tobytes()


def test_long_text_is_cut_and_ends_in_an_ellipsis() -> None:
    cut = draw_contact_sheet([tile(title="x" * 1000)]).tobytes()
    fitting = [draw_contact_sheet([tile(title="x" * count + "…")]) for count in range(15, 24)]
    assert cut in [sheet.tobytes() for sheet in fitting[:-1]]
    # The last candidate did not fit itself.
    assert fitting[-1].tobytes() == cut


def test_text_is_literal() -> None:
    """Mathtext would draw `$x$` without its dollar signs, in italics."""
    drawn = [draw_contact_sheet([tile(title=title)]).tobytes() for title in ("$x$", "x", "$ x $")]
    assert len(set(drawn)) == 3
    dollars = draw_contact_sheet([tile(title="$$", caption="")]).tobytes()
    assert dollars != draw_contact_sheet([tile(title="", caption="")]).tobytes()
