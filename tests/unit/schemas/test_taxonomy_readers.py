"""The three file formats: small samples, and the publishers' own files."""

import csv
import io
from functools import partial

import pytest

from schemas.errors import TaxonomyError
from schemas.taxonomy import Category, Taxonomy
from schemas.taxonomy_readers import read_taxonomy
from tests.support.paths import DATA
from tests.support.taxonomy_samples import (
    APPLE,
    DAIRY,
    FRUIT,
    GOOGLE,
    GROCERIES,
    SHOPIFY,
    TREE,
    read_content,
)


@pytest.fixture
def read(tmp_path):
    return partial(read_content, tmp_path)


class TestReading:
    def test_csv(self, read):
        taxonomy = read(GROCERIES)
        assert list(taxonomy) == list(TREE)
        assert taxonomy.version == taxonomy.digest[:12]

    def test_a_path_as_str(self, tmp_path):
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
    def test_without_a_version_comment_the_digest_is_the_version(self, read, text):
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

    def test_shopifys_mapping_file_is_not_a_taxonomy(self):
        name = "dist_en_integrations_google_shopify_2025-08_to_google_2021-09-21.txt"
        with pytest.raises(TaxonomyError, match="line 6: unknown format"):
            read_taxonomy(DATA / "taxonomy/shopify" / name)
