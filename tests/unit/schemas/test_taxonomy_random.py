"""Random trees survive the round trip through file and table."""

import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.taxonomy import Category, Taxonomy
from schemas.taxonomy_readers import read_taxonomy

WORDS = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    .map(str.strip)
    .filter(lambda word: word and ">" not in word.split())
)


@st.composite
def trees(draw: st.DrawFn) -> list[Category]:
    """Categories of a random tree, in random order."""
    by_path: dict[tuple[str, ...], Category] = {}
    ids = draw(st.lists(WORDS, min_size=1, max_size=12, unique=True))
    for category_id in ids:
        parent = draw(st.sampled_from([None, *by_path.values()]))
        path = (*(parent.path if parent else ()), draw(WORDS))
        category = Category(category_id, path, parent.category_id if parent else None)
        by_path.setdefault(path, category)
    return draw(st.permutations(list(by_path.values())))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("random") / "tree.csv"


class TestRandomTrees:
    @given(categories=trees(), with_parents=st.booleans(), version=st.sampled_from(["v 1", None]))
    @settings(deadline=None)
    def test_csv_and_table_round_trip(self, file, categories, with_parents, version):
        names = ["category_id", "category_path", *(["parent_id"] if with_parents else [])]
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
            writer.writerow(names)
            writer.writerows(
                (c.category_id, " > ".join(c.path), c.parent_id)[: len(names)] for c in categories
            )
        built = Taxonomy(sorted(categories, key=lambda c: c.path), version)
        taxonomy = read_taxonomy(file)
        assert list(taxonomy) == categories
        assert taxonomy.digest == built.digest

        table = Taxonomy.from_table(built.to_table())
        assert list(table) == list(built)
        assert (table.version, table.digest) == (built.version, built.digest)

    @given(categories=trees())
    def test_ancestors_agree_with_paths(self, categories):
        taxonomy = Taxonomy(categories)
        for category in taxonomy:
            above = taxonomy.ancestors(category.category_id)
            assert [taxonomy[a].path for a in above] == [
                category.path[:depth] for depth in range(1, len(category.path))
            ]
