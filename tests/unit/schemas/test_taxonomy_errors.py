"""Malformed taxonomy files, and the message for each."""

import pytest

from schemas.errors import SettingsError, TaxonomyError
from schemas.taxonomy_readers import read_taxonomy
from tests.support.taxonomy_samples import GOOGLE, GROCERIES, SHOPIFY, read_content


@pytest.fixture
def error(tmp_path):
    """Gives the message about a malformed file, without its folder."""

    def error(content: str | bytes) -> str:
        with pytest.raises(TaxonomyError) as caught:
            read_content(tmp_path, content)
        text = str(caught.value)
        assert "\n" not in text
        return text.replace(f"{tmp_path}/", "")

    return error


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
