"""Taxonomies: the tree, refusals, and the table they are stored as."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import TaxonomyError
from schemas.taxonomy import TAXONOMY, Category, Taxonomy
from tests.support.taxonomy_samples import APPLE, DAIRY, FRUIT, TREE


class TestTree:
    def test_lookup_and_order(self):
        taxonomy = Taxonomy(TREE)
        assert len(taxonomy) == 5
        assert list(taxonomy) == list(TREE)
        assert taxonomy["f/a"] == APPLE
        assert "f/a" in taxonomy
        assert "f/x" not in taxonomy
        assert APPLE.name == "Apple"

    def test_ancestors(self):
        taxonomy = Taxonomy(TREE)
        assert taxonomy.ancestors("f/a/g") == ("f", "f/a")
        assert taxonomy.ancestors("f") == ()

    @pytest.mark.parametrize("ask", [Taxonomy.__getitem__, Taxonomy.ancestors])
    def test_an_unknown_id_is_a_key_error(self, ask):
        with pytest.raises(KeyError):
            ask(Taxonomy(TREE), "nope")

    def test_digest_depends_on_content_alone(self):
        digest = Taxonomy(TREE).digest
        assert len(digest) == 64
        assert Taxonomy(reversed(TREE), "2026-01").digest == digest
        assert Taxonomy(TREE[1:]).digest != digest
        renamed = Category("d", ("Milk",), None)
        assert Taxonomy([renamed if c is DAIRY else c for c in TREE]).digest != digest

    def test_version_is_the_publishers_or_the_digests(self):
        assert Taxonomy(TREE, "2026-01").version == "2026-01"
        assert Taxonomy(TREE).version == Taxonomy(TREE).digest[:12]

    @pytest.mark.parametrize(
        ("categories", "expected"),
        [
            ([], "a taxonomy needs at least one category"),
            ([FRUIT, Category("", ("X",), None)], "category 2: empty category_id"),
            ([Category("x", (), None)], "category 1: category 'x' has an empty name in its path"),
            (
                [FRUIT, Category("x", ("Fruit", ""), "f")],
                "category 2: category 'x' has an empty name in its path",
            ),
            (
                [FRUIT, DAIRY, Category("f", ("X",), None)],
                "category 3: category_id 'f' is already at category 1",
            ),
            (
                [FRUIT, DAIRY, Category("x", ("Fruit",), None)],
                "category 3: category_path 'Fruit' is already at category 1",
            ),
            (
                [FRUIT, Category("x", ("Fruit", "X"), "y")],
                "category 2: parent 'y' of category 'x' is not in the taxonomy",
            ),
            (
                [FRUIT, Category("x", ("X",), "x")],
                "category 2: category 'x' is its own ancestor, by the parents 'x' → 'x'",
            ),
            (
                [
                    Category("c", ("A", "B", "C"), "b"),
                    Category("a", ("A",), "b"),
                    Category("b", ("A", "B"), "a"),
                ],
                "category 3: category 'b' is its own ancestor, by the parents 'b' → 'a' → 'b'",
            ),
            (
                [FRUIT, Category("x", ("Dairy", "X"), "f")],
                "category 2: category_path 'Dairy > X' of category 'x' does not extend that of its "
                "parent, 'Fruit', by one name",
            ),
            (
                [FRUIT, Category("x", ("Fruit", "X", "Y"), "f")],
                "category 2: category_path 'Fruit > X > Y' of category 'x' does not extend that of "
                "its parent, 'Fruit', by one name",
            ),
            (
                [FRUIT, Category("x", ("Fruit", "X"), None)],
                "category 2: category_path 'Fruit > X' of category 'x' does not extend that of its "
                "parent, '', by one name",
            ),
        ],
    )
    def test_not_a_tree(self, categories, expected):
        with pytest.raises(TaxonomyError) as caught:
            Taxonomy(categories)
        assert str(caught.value) == expected

    def test_a_deep_tree(self):
        names = [f"n{depth}" for depth in range(2000)]
        chain = [
            Category(name, tuple(names[: depth + 1]), names[depth - 1] if depth else None)
            for depth, name in enumerate(names)
        ]
        taxonomy = Taxonomy(reversed(chain))
        assert taxonomy.ancestors("n1999") == tuple(names[:-1])


class TestTable:
    @pytest.mark.parametrize("version", ["2026-01", None])
    def test_round_trip_through_parquet(self, tmp_path, version):
        taxonomy = Taxonomy(TREE, version)
        table = taxonomy.to_table()
        assert table.schema == TAXONOMY
        pq.write_table(table, tmp_path / "taxonomy.parquet")
        again = Taxonomy.from_table(pq.ParquetFile(tmp_path / "taxonomy.parquet").read())
        assert list(again) == list(taxonomy)
        assert (again.version, again.digest) == (taxonomy.version, taxonomy.digest)

    def test_without_metadata_the_version_is_the_digests(self):
        again = Taxonomy.from_table(Taxonomy(TREE, "2026-01").to_table().replace_schema_metadata())
        assert again.version == again.digest[:12]

    @pytest.mark.parametrize(
        ("table", "expected"),
        [
            (
                pa.table({"category_id": ["f"], "category_path": ["Fruit"]}),
                "taxonomy table: column category_path is string, expected list<item: string>; "
                "column parent_id is missing, expected string",
            ),
            (
                Taxonomy([FRUIT, DAIRY]).to_table().slice(0, 0),
                "a taxonomy needs at least one category",
            ),
            (
                Taxonomy([FRUIT, APPLE]).to_table().slice(1),
                "taxonomy table, row 0: parent 'f' of category 'f/a' is not in the taxonomy",
            ),
            (
                pa.table(
                    {
                        "category_id": ["f", None],
                        "category_path": [["Fruit"], ["Dairy"]],
                        "parent_id": pa.array([None, None], pa.string()),
                    }
                ),
                "taxonomy table, row 1: empty category_id",
            ),
            (
                pa.table(
                    {
                        "category_id": ["f", "d"],
                        "category_path": [["Fruit"], None],
                        "parent_id": pa.array([None, None], pa.string()),
                    }
                ),
                "taxonomy table, row 1: category 'd' has an empty name in its path",
            ),
        ],
    )
    def test_not_a_taxonomy(self, table, expected):
        with pytest.raises(TaxonomyError) as caught:
            Taxonomy.from_table(table)
        assert str(caught.value) == expected
