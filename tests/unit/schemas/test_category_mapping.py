"""Mapping files: both formats, what they say of a category, and what is refused."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.category_mapping import CategoryMapping, Outcome, read_mapping
from schemas.errors import DataContractError, SettingsError
from schemas.taxonomy import Category, Taxonomy
from schemas.taxonomy_readers import read_taxonomy
from tests.support.paths import DATA

OLD = Taxonomy(
    [
        Category("c", ("Clothes",), None),
        Category("c/h", ("Clothes", "Headwear"), "c"),
        Category("c/h/caps", ("Clothes", "Headwear", "Caps"), "c/h"),
        Category("c/boots", ("Clothes", "Boots"), "c"),
        Category("t", ("Toys",), None),
        Category("m", ("Media",), None),
    ]
)
NEW = Taxonomy(
    [
        Category("1", ("Apparel",), None),
        Category("2", ("Apparel", "Hats > Caps"), "1"),
        Category("3", ("Shoes",), None),
    ]
)
TEXT = "from_id,to_id\nc,1\nc/h,2\nc/boots,1\nc/boots,3\nc/boots,3\nt,\n"


def read(folder: Path, text: str) -> CategoryMapping:
    path = folder / "map"
    path.write_text(text, encoding="utf-8")
    return read_mapping(path, OLD, NEW)


def test_what_a_mapping_says(tmp_path: Path) -> None:
    mapping = read(tmp_path, TEXT)
    assert len(mapping) == 4
    assert mapping.find("c") == (Outcome.MAPPED, ("1",))
    assert mapping.find("c/h/caps") == (Outcome.BY_ANCESTOR, ("2",))
    assert mapping.find("c/boots") == (Outcome.AMBIGUOUS, ("1", "3"))
    assert mapping.find("t") == (Outcome.RETIRED, ())
    assert mapping.find("m") == (Outcome.UNMAPPED, ())
    assert mapping.find("x") == (Outcome.UNKNOWN, ())


def test_shopifys_format(tmp_path: Path) -> None:
    text = "# map\n\n→ Clothes\n⇒ Apparel\n⇒ Shoes\n\n→ Clothes > Headwear\n→ Toys\n⇒ Shoes\n"
    mapping = read(tmp_path, text)
    assert mapping.find("c") == (Outcome.AMBIGUOUS, ("1", "3"))
    assert mapping.find("c/h/caps") == (Outcome.RETIRED, ())
    assert mapping.find("t") == (Outcome.MAPPED, ("3",))


def test_digest_is_of_pairs_and_trees(tmp_path: Path) -> None:
    first = read(tmp_path, TEXT)
    head, *lines = TEXT.splitlines()
    assert read(tmp_path, "\n".join([head, *reversed(lines)])).digest != first.digest  # 1, 3: 3, 1
    assert read(tmp_path, "\n".join([head, *lines, lines[0]])).digest == first.digest
    assert read(tmp_path, TEXT + "m,3\n").digest != first.digest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from_id,to_id\n", "maps no category"),
        ("old,new\nc,1\n", "no column from_id, to_id, expected a CSV"),
        ("from_id,to_id\n,1\n", "line 2: from_id is empty"),
        ("from_id,to_id\nc\n", "line 2: to_id is missing"),
        ("from_id,to_id\nx,1\n", "line 2: the old taxonomy has no category 'x'"),
        ("from_id,to_id\nc,9\n", "line 2: the new taxonomy has no category '9'"),
        ("→ Clothes > X\n⇒ Apparel\n", "line 1: the old taxonomy has no category 'Clothes > X'"),
        ("⇒ Apparel\n→ Clothes\n", "line 1: ⇒ without → above it"),
        ("→ Clothes\nApparel\n", "line 2: expected →, ⇒ or a comment"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(DataContractError, match=expected):
        read(tmp_path, text)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_mapping(tmp_path / "none", OLD, NEW)
    (tmp_path / "latin").write_bytes(b"from_id,to_id\nc,\xff\n")
    with pytest.raises(DataContractError, match="not UTF-8"):
        read_mapping(tmp_path / "latin", OLD, NEW)


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-map"
    path.write_bytes(b"from_id,to_id\nc,1\n" + data)
    with suppress(DataContractError):
        assert read_mapping(path, OLD, NEW).find("c")[0] in (Outcome.MAPPED, Outcome.AMBIGUOUS)


@pytest.mark.photos
def test_shopifys_mapping_to_googles_tree_is_whole() -> None:
    folder = DATA / "taxonomy"
    shopify = read_taxonomy(folder / "shopify" / "dist_en_categories.txt")
    google = read_taxonomy(folder / "google" / "taxonomy-with-ids.en-US.txt")
    (file,) = (folder / "shopify").glob("*_to_google_*")
    mapping = read_mapping(file, shopify, google)
    found = [mapping.find(each.category_id) for each in shopify]
    kinds = [kind for kind, _ in found]
    assert len(mapping) == kinds.count(Outcome.MAPPED) == 10_535
    # Bundles, product add-ons, gift wrapping: Google's tree has nothing for them.
    assert kinds.count(Outcome.UNMAPPED) == len(shopify) - 10_535 == 60
    assert all(target in google for _, targets in found for target in targets)
