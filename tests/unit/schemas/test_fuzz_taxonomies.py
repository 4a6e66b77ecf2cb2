"""Mutated taxonomy files are read, or refused in one line that names the place."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.errors import SeerError
from schemas.taxonomy import Taxonomy
from schemas.taxonomy_readers import read_taxonomy
from tests.support.mutations import SOAKING, examples, mutate
from tests.support.taxonomy_samples import GOOGLE, GROCERIES, SHOPIFY

QUOTED = (
    "\ufeff# Version: 7\ncategory_id,category_path,parent_id,note\r\n"
    '"a","Food, fresh",,\r\n"b","Food, fresh > ""Apples""","a","two\nlines"\r\n'
)
SAMPLES = {"csv": GROCERIES, "quoted": QUOTED, "shopify": SHOPIFY, "google": GOOGLE}
FILES = {name: text.encode() for name, text in SAMPLES.items()}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "taxonomy"


def is_read_or_refused(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    try:
        taxonomy = read_taxonomy(file)
    except SeerError as error:
        message = str(error)
        assert len(message.splitlines()) == 1
        assert str(file) in message
        return
    again = Taxonomy.from_table(taxonomy.to_table())
    assert (list(again), again.version) == (list(taxonomy), taxonomy.version)
    for category in taxonomy:
        above = taxonomy.ancestors(category.category_id)
        assert len(above) == len(category.path) - 1


@pytest.mark.parametrize("name", FILES)
def test_the_samples_are_read(file: Path, name: str) -> None:
    file.write_bytes(FILES[name])
    assert len(read_taxonomy(file)) >= 2


@given(st.sampled_from(sorted(FILES)), st.integers(0, 2**32))
@settings(max_examples=examples(500, 40_000), derandomize=not SOAKING)
@example("shopify", 1070)  # A version with a control character.
def test_fuzz_mutated_taxonomies(file: Path, name: str, seed: int) -> None:
    is_read_or_refused(file, mutate(FILES[name], list(FILES.values()), seed))


@given(
    st.sampled_from(
        [b"", b"\xef\xbb\xbf", b"category_id,category_path,parent_id\n", *FILES.values()]
    ),
    st.binary()
    | st.text(st.sampled_from('ab1 >-:,#"\n\r\0'), max_size=60).map(str.encode)
    | st.text(st.characters(exclude_categories=["Cs"])).map(str.encode),
)
@settings(max_examples=examples(300, 30_000), derandomize=not SOAKING)
@example(b"category_id,category_path\n", b"a,A\x85B")
@example(b"category_id,category_path\n", "a,A\u2028B\n".encode())
def test_fuzz_lines_after_a_beginning(file: Path, start: bytes, rest: bytes) -> None:
    is_read_or_refused(file, start + rest)
