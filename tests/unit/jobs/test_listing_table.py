"""Tables of listings: which columns and cells are read, and which tables are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.listing_tables import LISTINGS, Rows, columns, sha256, table


def test_listings_of_a_table(build: Callable[..., Rows], images: Path, tmp_path: Path) -> None:
    rows = build("--listings", table(tmp_path, LISTINGS))
    names = ("listing_id", "image_index", "category_id", "split", "image_key")
    assert columns(rows, *names) == [
        ("L1", 0, "boots", "train", sha256(images / "shoes/b.jpg")),
        ("L1", 1, "boots", "train", None),
        ("L2", 0, "caps", "val", sha256(images / "hat.png")),
        ("L3", 0, None, None, sha256(images / "hat.png")),
    ]
    assert rows[1]["image_uri"] == str(images / "shoes/nosuch.jpg")


def test_a_missing_photo_keeps_its_address(build: Callable[..., Rows], tmp_path: Path) -> None:
    """So that the daily job reports it, and finds it once it is there."""
    rows = build("--listings", table(tmp_path, LISTINGS), "--embed-bytes")
    assert [row["image_bytes"] is None for row in rows] == [False, True, False, False]
    assert rows[1]["image_uri"].endswith("nosuch.jpg")


@pytest.mark.parametrize("header", ["path,listing_id", "\ufeffpath,listing_id"])
def test_columns_that_may_be_missing(
    build: Callable[..., Rows], tmp_path: Path, header: str
) -> None:
    text = f"{header}\nhat.png,L2\nhat.png,L1\nhat.png,L2\n"
    rows = build("--listings", table(tmp_path, text))
    assert columns(rows, "listing_id", "image_index") == [("L2", 0), ("L1", 0), ("L2", 1)]


def test_absolute_paths_of_a_table(
    build: Callable[..., Rows], images: Path, tmp_path: Path
) -> None:
    text = f"listing_id,path\nL1,{images / 'hat.png'}\n"
    (row,) = build("--listings", table(tmp_path, text))
    assert row["image_uri"] == str(images / "hat.png")


def test_splits(build: Callable[..., Rows], tmp_path: Path) -> None:
    listings = table(tmp_path, LISTINGS)
    assert columns(build("--listings", listings, "--split", "val"), "listing_id") == [("L2",)]
    both = build("--listings", listings, "--split", "val", "--split", "train")
    assert columns(both, "listing_id") == [("L1",), ("L1",), ("L2",)]


def test_many_rows_keep_their_order(build: Callable[..., Rows], tmp_path: Path) -> None:
    text = "listing_id,path\n" + "".join(f"L{i},hat.png\n" for i in range(2001))
    rows = build("--listings", table(tmp_path, text))
    assert columns(rows, "listing_id") == [(f"L{i}",) for i in range(2001)]


def test_columns_become_slices(build: Callable[..., Rows], tmp_path: Path) -> None:
    text = "listing_id,path,seller,country\nL1,hat.png,shop,DE\nL2,hat.png,,FR\nL3,hat.png,,\n"
    flags = ("--slice-column", "seller", "--slice-column", "country")
    rows = build("--listings", table(tmp_path, text), *flags)
    slices = [row["slices"] for row in rows]
    assert slices == [[("seller", "shop"), ("country", "DE")], [("country", "FR")], None]


def test_label_map(build: Callable[..., Rows], tmp_path: Path) -> None:
    labels = table(tmp_path, "category_id,shopify_id,mine\nboots,aa-8,b\ncaps,,c\n", "labels.csv")
    listings = ("--listings", table(tmp_path, LISTINGS))
    rows = build(*listings, "--label-map", labels)
    assert columns(rows, "category_id") == [("aa-8",), ("aa-8",), (None,), (None,)]
    rows = build(*listings, "--label-map", labels, "--label-column", "mine")
    assert columns(rows, "category_id") == [("b",), ("b",), ("c",), (None,)]


def test_column_names_with_blanks_and_capitals_are_those_of_the_contract(
    build: Callable[..., Rows], tmp_path: Path
) -> None:
    text = "Listing ID, path, Category_ID, SPLIT, Country\nL1, hat.png, caps, Val, DE\n"
    rows = build("--listings", table(tmp_path, text), "--slice-column", "country")
    names = ("listing_id", "category_id", "split", "slices")
    assert columns(rows, *names) == [("L1", "caps", "val", [("country", "DE")])]


def test_a_category_is_a_label_where_there_is_no_category_id(
    build: Callable[..., Rows], tmp_path: Path
) -> None:
    text = "listing_id,path,category\nL1,hat.png,caps\n"
    assert columns(build("--listings", table(tmp_path, text)), "category_id") == [("caps",)]
    text = "listing_id,path,category,category_id\nL1,hat.png,Caps and hats,caps\n"
    assert columns(build("--listings", table(tmp_path, text)), "category_id") == [("caps",)]


def test_lines_and_cells_that_hold_nothing_are_no_rows(
    build: Callable[..., Rows], tmp_path: Path
) -> None:
    text = "listing_id,path\nL1,hat.png,,\n,,,\n\n"
    assert columns(build("--listings", table(tmp_path, text)), "listing_id") == [("L1",)]


def test_a_listing_has_the_label_and_split_that_one_of_its_rows_states(
    build: Callable[..., Rows], tmp_path: Path
) -> None:
    """As in exports that fill in the first row of a product only."""
    text = "listing_id,path,category_id,split\nL1,hat.png,caps,val\nL1,shoes/b.jpg,,\n"
    rows = build("--listings", table(tmp_path, text), "--split", "val")
    assert columns(rows, "category_id", "split") == [("caps", "val")] * 2


def test_a_listing_with_two_labels_or_two_splits_gets_neither(
    build: Callable[..., Rows], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        "listing_id,path,category_id,split\n"
        "L1,hat.png,caps,train\nL1,shoes/b.jpg,boots,train\n"
        "L2,hat.png,caps,train\nL2,shoes/b.jpg,caps,val\n"
        "L3,hat.png,caps,train\n"
    )
    report = tmp_path / "report.json"
    rows = build("--listings", table(tmp_path, text), "--report", str(report))
    assert columns(rows, "listing_id", "category_id", "split") == [
        *[("L1", None, None)] * 2,
        *[("L2", None, None)] * 2,
        ("L3", "caps", "train"),
    ]
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert figures["listings_with_two_labels"] == figures["listings_with_two_splits"] == 1
    assert "1 listings have two labels" in caplog.text
    assert "'L2'" in caplog.text


def test_paths_cannot_leave_the_folder_by_its_links(
    build: Callable[..., Rows], images: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "hat.png").write_bytes(b"secret")
    (images / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    (row,) = build("--listings", table(tmp_path, "listing_id,path\nL1,link/../hat.png\n"))
    assert row["image_uri"] == str(images / "hat.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listing_id,image_index\nL1,0\n", "listings.csv: no column path"),
        ("", "listings.csv: no column listing_id, path"),
        ("listing_id,path\nL1,a.jpg\n,hat.png\n", "listings.csv, line 3: listing_id or path"),
        ('listing_id,path\n"L\n1",a.jpg\nL2,\n', "listings.csv, line 4: listing_id or path"),
        ("listing_id,path\nL1\n", "listings.csv, line 2: 1 cells for 2 columns"),
        ("listing_id,path,image_index\nL1,a.jpg,first\n", "line 2: image_index 'first'"),
        ("listing_id,path,image_index\nL1,a.jpg,-1\n", "line 2: image_index '-1'"),
        ("listing_id,path,image_index\nL1,a.jpg,3000000000\n", "line 2: image_index '3000000000'"),
        (f"listing_id,path,image_index\nL1,a.jpg,{'9' * 5000}\n", "line 2: image_index '999"),
        (b"listing_id,path\nL1,caf\xe9.jpg\n", "listings.csv: not UTF-8"),
        (f"listing_id,path\nL1,{'x' * 200_000}\n", "listings.csv, line 2: field larger"),
        ("listing_id,path\n", "listings.csv: no photo"),
        ("listing_id,path,split\nL1,hat.png,train,val\n", "line 2: 4 cells for 3 columns"),
        ("listing_id,path,split\nL1,hat.png,validation\n", "line 2: split 'validation': the jobs"),
        ("listing_id,path,Path\nL1,hat.png,b.jpg\n", "listings.csv: 2 columns are called path"),
        ("listing_id,path\nL1,/etc/passwd\n", "line 2: path '/etc/passwd' lies outside"),
        (
            "listing_id,path\nL1,shoes/../../b.jpg\n",
            "line 2: path 'shoes/../../b.jpg' lies outside",
        ),
        ("listing_id,path\nL1,https://a.example/b.jpg\n", "line 2: path 'https://a.example/b.jpg'"),
        ("listing_id,path\nL1,hats.png\n", "none of the 1 photos can be read"),
        (f"listing_id,path\nL1,{'x' * 300}\n", "none of the 1 photos can be read"),
        (
            "listing_id,path,category_id\nL1,hat.png,caps\nL1,hat.png,boots\n",
            "no category_id is left of those given; 1 listings have two labels",
        ),
        (
            "listing_id,path,split\nL1,hat.png,train\nL1,hat.png,val\n",
            "no split is left of those given; 1 listings have two splits",
        ),
    ],
)
def test_bad_tables_are_3(
    fail: Callable[..., tuple[int, str]], tmp_path: Path, text: str | bytes, message: str
) -> None:
    code, line = fail("--listings", table(tmp_path, text))
    assert code == 3
    assert message in line


def test_labels_that_the_map_lacks_are_said_and_a_map_without_any_is_3(
    report: Callable[..., dict[str, Any]],
    fail: Callable[..., tuple[int, str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    labels = table(tmp_path, "category_id,shopify_id\nsocks,aa-9\n", "labels.csv")
    code, line = fail("--listings", table(tmp_path, LISTINGS), "--label-map", labels)
    assert (code, "no category_id is left of those given; 2 labels" in line) == (3, True)
    labels = table(tmp_path, "category_id,shopify_id\nboots,aa-8\n", "labels.csv")
    assert report(LISTINGS, "--label-map", labels)["labels_not_mapped"] == ["caps"]
    assert "1 labels have none in" in caplog.text


def test_missing_columns_and_two_labels_in_a_map_are_3(
    fail: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    labels = table(tmp_path, "category_id,shopify_id\nboots,aa-8\n", "labels.csv")
    listings = ("--listings", table(tmp_path, LISTINGS))
    code, line = fail(*listings, "--label-map", labels, "--label-column", "nosuch")
    assert (code, "labels.csv: no column nosuch" in line) == (3, True)
    labels = table(tmp_path, "category_id,shopify_id\na,aa-8\na,aa-9\n", "labels.csv")
    code, line = fail(*listings, "--label-map", labels)
    assert (code, "labels.csv, line 3: a line above gives 'a' another" in line) == (3, True)
    code, line = fail(*listings, "--slice-column", "brand")
    assert (code, "no column brand" in line) == (3, True)
