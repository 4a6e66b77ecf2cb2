"""Taxonomies: the tree, the three file formats, and every way a file can be wrong."""

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import SeerError, SettingsError, TaxonomyError
from schemas.taxonomy import TAXONOMY, Category, Taxonomy
from schemas.taxonomy_readers import read_taxonomy

DATA = Path(__file__).parents[3] / "shared/data"

FRUIT = Category("f", ("Fruit",), None)
APPLE = Category("f/a", ("Fruit", "Apple"), "f")
GALA = Category("f/a/g", ("Fruit", "Apple", "Gala"), "f/a")
PEAR = Category("f/p", ("Fruit", "Pear"), "f")
DAIRY = Category("d", ("Dairy",), None)
TREE = (GALA, FRUIT, DAIRY, PEAR, APPLE)
GROCERIES = """\
category_id,category_path
f/a/g,Fruit > Apple > Gala
f,Fruit
d,Dairy
f/p,Fruit > Pear
f/a,Fruit > Apple
"""
SHOPIFY = """\
# Shopify Product Taxonomy - Categories: 2025-08-unstable
# Format: {GID} : {Ancestor name} > ... > {Category name}

gid://shopify/TaxonomyCategory/aa     : Apparel & Accessories
gid://shopify/TaxonomyCategory/aa-1-2 : Apparel & Accessories > Clothing > Tops : Shirts
gid://shopify/TaxonomyCategory/aa-1   : Apparel & Accessories > Clothing
"""
GOOGLE = """\
# Google_Product_Taxonomy_Version: 2021-09-21
166 - Apparel & Accessories
1604 - Apparel & Accessories > Clothing
5598 - Apparel & Accessories > Clothing > Coats - Jackets
"""


class TestTree:
    def test_lookup_and_order(self):
        taxonomy = Taxonomy(TREE)
        assert len(taxonomy) == 5
        assert list(taxonomy) == list(TREE)
        assert taxonomy["f/a"] == APPLE
        assert "f/a" in taxonomy
        assert "f/x" not in taxonomy
        assert (APPLE.name, APPLE.depth, FRUIT.depth) == ("Apple", 2, 1)

    def test_relatives(self):
        taxonomy = Taxonomy(TREE)
        assert taxonomy.ancestors("f/a/g") == ("f", "f/a")
        assert taxonomy.ancestors("f") == ()
        assert taxonomy.children("f") == ("f/p", "f/a")
        assert taxonomy.children("d") == ()
        assert taxonomy.leaves() == ("f/a/g", "d", "f/p")

    @pytest.mark.parametrize("ask", [Taxonomy.__getitem__, Taxonomy.ancestors, Taxonomy.children])
    def test_an_unknown_id_is_a_key_error(self, ask):
        with pytest.raises(KeyError):
            ask(Taxonomy(TREE), "nope")

    def test_digest_depends_on_content_only(self):
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
    def test_what_is_not_a_tree(self, categories, expected):
        with pytest.raises(TaxonomyError) as caught:
            Taxonomy(categories)
        assert str(caught.value) == expected

    def test_a_long_chain_is_no_problem(self):
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
    def test_what_is_not_a_taxonomy(self, table, expected):
        with pytest.raises(TaxonomyError) as caught:
            Taxonomy.from_table(table)
        assert str(caught.value) == expected


@pytest.fixture
def read(tmp_path):
    """Reads a taxonomy from the text or bytes of a file named `tree`."""

    def read(content: str | bytes) -> Taxonomy:
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / "tree").write_bytes(data)
        return read_taxonomy(tmp_path / "tree")

    return read


@pytest.fixture
def error(read, tmp_path):
    """Gives the message about a file that is wrong, without its folder."""

    def error(content: str | bytes) -> str:
        with pytest.raises(TaxonomyError) as caught:
            read(content)
        text = str(caught.value)
        assert "\n" not in text
        return text.replace(f"{tmp_path}/", "")

    return error


class TestReading:
    def test_csv(self, read):
        taxonomy = read(GROCERIES)
        assert list(taxonomy) == list(TREE)
        assert taxonomy.version == taxonomy.digest[:12]

    def test_a_path_as_text(self, tmp_path):
        (tmp_path / "tree").write_text(GROCERIES)
        assert len(read_taxonomy(str(tmp_path / "tree"))) == 5

    def test_shopify(self, read):
        taxonomy = read(SHOPIFY)
        assert taxonomy.version == "2025-08-unstable"
        assert list(taxonomy) == [
            Category("aa", ("Apparel & Accessories",), None),
            Category("aa-1-2", ("Apparel & Accessories", "Clothing", "Tops : Shirts"), "aa-1"),
            Category("aa-1", ("Apparel & Accessories", "Clothing"), "aa"),
        ]

    def test_google(self, read):
        taxonomy = read(GOOGLE)
        assert taxonomy.version == "2021-09-21"
        assert list(taxonomy) == [
            Category("166", ("Apparel & Accessories",), None),
            Category("1604", ("Apparel & Accessories", "Clothing"), "166"),
            Category("5598", ("Apparel & Accessories", "Clothing", "Coats - Jackets"), "1604"),
        ]

    @pytest.mark.parametrize("text", [GROCERIES, SHOPIFY, GOOGLE])
    def test_byte_order_mark_and_line_endings(self, read, text):
        plain = read(text)
        windows = read(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
        assert list(windows) == list(plain)
        assert windows.version == plain.version
        assert list(read(text.removesuffix("\n"))) == list(plain)

    @pytest.mark.parametrize("text", [SHOPIFY, GOOGLE])
    def test_without_its_comment_the_version_is_the_digests(self, read, text):
        taxonomy = read(text.partition("\n")[2])
        assert taxonomy.version == taxonomy.digest[:12]
        assert taxonomy.digest == read(text).digest

    def test_comments_and_blank_lines_between_categories(self, read):
        assert len(read(GOOGLE.replace("1604", "\n# 3 - Left out\n1604"))) == 3

    def test_csv_may_give_its_version(self, read):
        assert read("# Our tree, version: 7\n" + GROCERIES).version == "7"

    def test_csv_columns_in_any_order_others_ignored(self, read):
        text = '"google_id", category_path ,note,category_id\n1,Fruit,"a\nb",f\n\n,,,\n,Dairy,,d\n'
        assert list(read(text)) == [FRUIT, DAIRY]

    def test_csv_parent_id(self, read):
        text = "category_id,category_path,parent_id\nf/a,Fruit > Apple,f\nf,Fruit,\n"
        assert list(read(text)) == [APPLE, FRUIT]

    @pytest.mark.parametrize(
        "name",
        ["Milk, cream", "Size>40", ">40", "40>", 'The "best"', "Käse", "奶酪", "🧀", "a  b", "#1"],
    )
    def test_names(self, read, name):
        text = io.StringIO()
        csv.writer(text).writerows(
            [("category_id", "category_path"), ("1", name), ("2", f"{name} > {name}")]
        )
        assert read(text.getvalue())["2"].path == (name, name)
        assert read(f"1 - {name}\n2 - {name} > {name}\n")["2"].path == (name, name)


class TestErrors:
    @pytest.mark.parametrize("text", ["", "\n \n", "\ufeff", "# only a comment\n"])
    def test_empty(self, error, text):
        assert error(text) == "tree: empty, expected categories"

    def test_only_a_header(self, error):
        assert error("category_id,category_path\n\n") == "tree: a header without categories"

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("hello", 1),
            ("# a comment\n\nname,path\n1,Fruit\n", 3),
            ("Apparel\nApparel > Clothing\n", 1),
            ("PK\x03\x04\x00", 1),
        ],
    )
    def test_unknown_format(self, error, text, line):
        assert error(text) == (
            f"tree, line {line}: unknown format, expected a CSV with the header "
            "category_id,category_path, Shopify's categories.txt or Google's taxonomy-with-ids.txt"
        )

    @pytest.mark.parametrize(
        ("data", "line"),
        [
            (b"category_id,category_path\nf,Fruit\nk,K\xe4se\n", 3),
            ("\ufeffcategory_id,category_path\n".encode() + b"k,K\xe4se\n", 2),
            (GROCERIES.encode("utf-16"), 1),
        ],
    )
    def test_not_utf8(self, error, data, line):
        assert error(data) == f"tree, line {line}: not UTF-8 text; save it as UTF-8"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                GROCERIES + "f,Vegetables\n",
                "tree, line 7: category_id 'f' is already at tree, line 3",
            ),
            (
                GROCERIES + "x,Fruit > Apple\n",
                "tree, line 7: category_path 'Fruit > Apple' is already at tree, line 6",
            ),
            (
                GROCERIES + "x,Bread > Rye\n",
                "tree, line 7: no category has the path 'Bread', the parent of 'x'",
            ),
            (
                GROCERIES + ",Bread\n",
                "tree, line 7: empty category_id",
            ),
            (
                GROCERIES + "x,\n",
                "tree, line 7: empty name in category_path ''",
            ),
            (
                GROCERIES + "x,Fruit >  > Rye\n",
                "tree, line 7: empty name in category_path 'Fruit >  > Rye'",
            ),
            (
                GROCERIES + "x,Fruit > > Rye\n",
                "tree, line 7: empty name in category_path 'Fruit > > Rye'",
            ),
            (
                GROCERIES + "x,Fruit > \n",
                "tree, line 7: empty name in category_path 'Fruit >'",
            ),
            (
                GROCERIES + "x,> Fruit\n",
                "tree, line 7: empty name in category_path '> Fruit'",
            ),
            (
                GROCERIES + "x\n",
                "tree, line 7: 1 cells, expected 2 as in the header; "
                "put a name that has a comma in double quotes",
            ),
            (
                GROCERIES + "x,Milk, cream\n",
                "tree, line 7: 3 cells, expected 2 as in the header; "
                "put a name that has a comma in double quotes",
            ),
            (
                GROCERIES + 'x,"Milk" cream\n',
                "tree, line 7: malformed CSV: ',' expected after '\"'",
            ),
            (
                GROCERIES + 'x,"Milk\ncream\n',
                "tree, line 7: malformed CSV: unexpected end of data",
            ),
            (
                'category_id,category_path\nf,"Fruit\n"\n\nf,Dairy\n',
                "tree, line 5: category_id 'f' is already at tree, line 2",
            ),
            (
                "# a comment\ncategory_id;category_path\n",
                "tree, line 2: the header has no column category_id",
            ),
            (
                "category_id,path\n",
                "tree, line 1: the header has no column category_path",
            ),
            (
                "category_id,category_path,category_id\n",
                "tree, line 1: the header has the column category_id more than once",
            ),
            (
                "category_id,category_path,parent_id\na,A,b\nb,A > B,a\n",
                "tree, line 2: category 'a' is its own ancestor, by the parents 'a' → 'b' → 'a'",
            ),
            (
                "category_id,category_path,parent_id\na,A,\nb,A > B,c\n",
                "tree, line 3: parent 'c' of category 'b' is not in the taxonomy",
            ),
            (
                "category_id,category_path,parent_id\na,A,\nb,A > B,\n",
                "tree, line 3: category_path 'A > B' of category 'b' does not extend that of its "
                "parent, '', by one name",
            ),
        ],
    )
    def test_csv(self, error, text, expected):
        assert error(text) == expected

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (
                "gid://shopify/TaxonomyCategory/aa : Again",
                "tree, line 7: category_id 'aa' is already at tree, line 4",
            ),
            (
                "gid://shopify/TaxonomyCategory/bb : Apparel & Accessories",
                "tree, line 7: category_path 'Apparel & Accessories' is already at tree, line 4",
            ),
            (
                "gid://shopify/TaxonomyCategory/bb-1 : Baby > Bath",
                "tree, line 7: no category has the path 'Baby', the parent of 'bb-1'",
            ),
            (
                "gid://shopify/TaxonomyCategory/bb : Baby >",
                "tree, line 7: empty name in category_path 'Baby >'",
            ),
            *(
                (
                    line,
                    f"tree, line 7: malformed line {line!r}, expected "
                    "'gid://shopify/TaxonomyCategory/ID : A > B'",
                )
                for line in (
                    "gid://shopify/TaxonomyCategory/bb",
                    "gid://shopify/TaxonomyCategory/ : Baby",
                    "gid://shopify/Product/1 : Baby",
                    "bb : Baby",
                )
            ),
        ],
    )
    def test_shopify(self, error, line, expected):
        assert error(SHOPIFY + line + "\n") == expected

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("166 - Again", "tree, line 5: category_id '166' is already at tree, line 2"),
            (
                "9 - Apparel & Accessories",
                "tree, line 5: category_path 'Apparel & Accessories' is already at tree, line 2",
            ),
            (
                "9 - Baby > Bath",
                "tree, line 5: no category has the path 'Baby', the parent of '9'",
            ),
            ("9 - Baby >  > Bath", "tree, line 5: empty name in category_path 'Baby >  > Bath'"),
            ("9 Baby", "tree, line 5: malformed line '9 Baby', expected 'ID - A > B'"),
            ("9 -", "tree, line 5: malformed line '9 -', expected 'ID - A > B'"),
            ("x - Baby", "tree, line 5: malformed line 'x - Baby', expected 'ID - A > B'"),
        ],
    )
    def test_google(self, error, line, expected):
        assert error(GOOGLE + line + "\n") == expected

    def test_no_such_file(self, tmp_path):
        with pytest.raises(
            SettingsError, match=r"nope\.csv cannot be read: No such file"
        ) as caught:
            read_taxonomy(tmp_path / "nope.csv")
        assert caught.value.exit_code == 2

    def test_a_folder(self, tmp_path):
        with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
            read_taxonomy(tmp_path)


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
    def test_relatives_agree(self, categories):
        taxonomy = Taxonomy(categories)
        for category in taxonomy:
            above = taxonomy.ancestors(category.category_id)
            assert [taxonomy[a].path for a in above] == [
                category.path[:depth] for depth in range(1, category.depth)
            ]
            assert list(taxonomy.children(category.category_id)) == [
                c.category_id for c in categories if c.parent_id == category.category_id
            ]
        parents = {category.parent_id for category in categories}
        assert set(taxonomy.leaves()) == set(taxonomy_ids(taxonomy)) - parents

    @given(
        start=st.sampled_from(
            [
                b"",
                b"\xef\xbb\xbf",
                b"category_id,category_path\n",
                b"category_id,category_path,parent_id\n",
                SHOPIFY.encode(),
                GOOGLE.encode(),
            ]
        ),
        rest=st.binary()
        | st.text(st.sampled_from('ab1 >-:,#"\n\r\0'), max_size=60).map(str.encode)
        | st.text(st.characters(exclude_categories=["Cs"])).map(str.encode),
    )
    @settings(deadline=None, max_examples=500)
    def test_any_bytes_give_a_taxonomy_or_an_error_in_one_line(self, file, start, rest):
        file.write_bytes(start + rest)
        message = str(file)
        try:
            assert len(read_taxonomy(file)) > 0
        except SeerError as error:
            message = str(error)
        assert len(message.splitlines()) == 1
        assert str(file) in message


def taxonomy_ids(taxonomy: Taxonomy) -> list[str]:
    return [category.category_id for category in taxonomy]


@pytest.mark.photos
@pytest.mark.skipif(not DATA.exists(), reason=f"real data absent: {DATA}")
class TestRealFiles:
    @pytest.mark.parametrize(
        ("name", "count", "version"),
        [
            ("taxonomy/shopify/dist_en_categories.txt", 10_595, "2025-08-unstable"),
            ("taxonomy/google/taxonomy-with-ids.en-US.txt", 5_595, "2021-09-21"),
            ("grocery/taxonomy.csv", 101, None),
            ("clothing/taxonomy.csv", 23, None),
        ],
    )
    def test_read_and_round_trip(self, name, count, version):
        taxonomy = read_taxonomy(DATA / name)
        assert len(taxonomy) == count
        assert taxonomy.version == version or taxonomy.version == taxonomy.digest[:12]
        assert (taxonomy.version == taxonomy.digest[:12]) == (version is None)
        again = Taxonomy.from_table(taxonomy.to_table())
        assert list(again) == list(taxonomy)
        assert (again.version, again.digest) == (taxonomy.version, taxonomy.digest)

    def test_shopify(self):
        taxonomy = read_taxonomy(DATA / "taxonomy/shopify/dist_en_categories.txt")
        assert taxonomy["aa-1-4"].path == ("Apparel & Accessories", "Clothing", "Dresses")
        assert taxonomy.ancestors("aa-1-4") == ("aa", "aa-1")

    def test_google(self):
        taxonomy = read_taxonomy(DATA / "taxonomy/google/taxonomy-with-ids.en-US.txt")
        assert taxonomy["2271"].path == ("Apparel & Accessories", "Clothing", "Dresses")
        assert taxonomy.ancestors("2271") == ("166", "1604")

    def test_grocery_leaves(self):
        assert len(read_taxonomy(DATA / "grocery/taxonomy.csv").leaves()) == 81

    def test_the_mapping_file_beside_them_is_no_taxonomy(self):
        name = "dist_en_integrations_google_shopify_2025-08_to_google_2021-09-21.txt"
        with pytest.raises(TaxonomyError, match="line 6: unknown format"):
            read_taxonomy(DATA / "taxonomy/shopify" / name)
