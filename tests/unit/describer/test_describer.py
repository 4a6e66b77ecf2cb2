"""What is known of photos: thresholds, limits of attributes, privacy, positions, and names."""

import pytest

from schemas.descriptions import StatementKind
from schemas.taxonomy import Category, Taxonomy
from seer_model.describer.describer import Describer, Language, category_names, load_describer
from seer_model.describer.grammar import read_locale
from seer_model.describer.statements import LEAST_COLOUR_SHARE, LEAST_TEXT_SCORE

TREE = Taxonomy(
    [
        Category("a", ("Apparel",), None),
        Category("a-1", ("Apparel", "Shirts"), "a"),
        Category("b", ("Books",), None),
    ]
)


def photo(index, *, colour=None, share=0.8, lines=(), reason=None):
    colours = None if colour is None else {"colours": [{"name": colour, "share": share}]}
    text = {"lines": [{"line": line, "score": score, "share": 0.05} for line, score in lines]}
    return {"image_index": index, "reject_reason": reason, "colours": colours, "text": text}


def listing(*photos, category="a-1", attributes=()):
    return {
        "listing_id": "one",
        "category_id": category,
        "score": 0.9,
        "attributes": [{"name": n, "value": v, "score": 0.8} for n, v in attributes],
        "photos": photos,
    }


def texts(found_listing, *, applies=None, languages=("en",)):
    describer = Describer(
        [Language(read_locale(each), category_names(TREE, None)) for each in languages],
        applies or {},
    )
    return [row["alt_text"] for row in describer.rows([found_listing]).to_pylist()]


def test_a_row_a_photo_and_language_in_the_order_of_the_photos():
    found = listing(photo(2, colour="red"), photo(0), photo(1, reason="corrupt"))
    assert texts(found, languages=("en", "de")) == [
        *("Shirts, photo 1 of 2", "Shirts, Foto 1 von 2"),
        *("Shirts in red, photo 2 of 2", "Shirts in Rot, Foto 2 von 2"),
        *(None, None),
    ]


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (photo(0, colour="red", share=LEAST_COLOUR_SHARE), "Shirts in red"),
        (photo(0, colour="red", share=LEAST_COLOUR_SHARE - 0.01), "Shirts"),
        (photo(0, lines=[("Hello", LEAST_TEXT_SCORE)]), "Shirts, with the text “Hello”"),
        (photo(0, lines=[("Hello", LEAST_TEXT_SCORE - 0.01)]), "Shirts"),
        (photo(0, lines=[("No", 0.99), ("x" * 41, 0.99)]), "Shirts"),
        (
            photo(0, lines=[('a "quoted"\u202e\nword', 0.99)]),
            "Shirts, with the text “a quoted word”",
        ),
        # Somebody's number is not read out to everybody.
        (photo(0, lines=[("Call me", 0.99), ("0171 2345678", 0.99)]), "Shirts"),
        (photo(0, lines=[("me at mail dot com", 0.99)]), "Shirts"),
    ],
)
def test_statements_need_to_be_sure(seen, text):
    assert texts(listing(seen)) == [text]


def test_the_largest_texts_are_said_from_top_to_bottom():
    seen = photo(0, lines=[("one", 0.99), ("two", 0.99), ("three", 0.99)])
    for number, share in enumerate((0.02, 0.01, 0.03)):
        seen["text"]["lines"][number]["share"] = share
    assert texts(listing(seen)) == ["Shirts, with the texts “one” and “three”"]


def test_attributes_apply_to_their_categories_and_below():
    attributes = [("material", "cotton"), ("author", "Bly")]
    applies = {"material": ["a", "a-1"], "author": ["b"]}
    said = texts(listing(photo(0), attributes=attributes), applies=applies)
    assert said == ["Shirts, made of cotton"]
    unknown = listing(photo(0, colour="red"), category=None, attributes=attributes)
    assert texts(unknown, applies=applies) == ["Product in red"]
    assert texts(listing(photo(0), attributes=attributes)) == [
        "Shirts, author: Bly, made of cotton"
    ]


def test_nothing_known_is_no_text():
    (row,) = Describer([Language(read_locale("en"), {})], {}).rows([listing(photo(0))]).to_pylist()
    assert (row["alt_text"], row["statements"]) == (None, [])


def test_names_are_of_the_language_or_of_the_nearest_ancestor_with_one():
    german = Taxonomy([Category("a", ("Bekleidung",), None), Category("x", ("Anderes",), None)])
    assert category_names(TREE, german) == {"a": "Bekleidung", "a-1": "Bekleidung"}
    assert category_names(TREE, None)["a-1"] == "Shirts"


def test_executors_get_the_same_describer(tmp_path):
    names = category_names(TREE, None)
    describer = Describer([Language(read_locale("es"), names)], {"material": ["a"]})
    describer.save(tmp_path / "describer")
    found = listing(photo(0, colour="blue"), attributes=[("material", "cotton")])
    opened = load_describer(tmp_path / "describer")
    assert opened.rows([found]).equals(describer.rows([found]))
    kinds = [each["kind"] for each in opened.rows([found]).to_pylist()[0]["statements"]]
    assert kinds == [StatementKind.CATEGORY, StatementKind.COLOUR]
