"""Photos of a data frame: accepted columns and values, and refusals."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from schemas.errors import DataContractError, SettingsError
from seer_model.photos.source import PhotoSource
from seer_model.tracking.photo_table import image_indexes, listing_ids, photo_rows, photo_sources


def test_bytes_and_uris() -> None:
    photos = pd.DataFrame(
        {
            "image_bytes": [b"one", None, bytearray(b"three"), np.nan, b"five"],
            "image_uri": [None, "two.jpg", np.nan, pd.NA, "five.jpg"],
        },
        index=[7, 7, 7, 8, 9],
    )
    assert photo_sources(photos, read_uris=True) == [
        PhotoSource(None, b"one"),
        PhotoSource("two.jpg", None),
        PhotoSource(None, b"three"),
        PhotoSource(None, None),
        PhotoSource("five.jpg", b"five"),
    ]


@pytest.mark.parametrize("column", ["image_bytes", "image_uri"])
def test_one_column_is_enough(column: str) -> None:
    value: Any = b"photo" if column == "image_bytes" else "photo.jpg"
    (source,) = photo_sources(pd.DataFrame({column: [value]}), read_uris=True)
    assert [part for part in source if part is not None] == [value]


def test_uris_are_refused_unless_allowed() -> None:
    photos = pd.DataFrame({"image_bytes": [b"photo", None], "image_uri": [None, "/etc/hostname"]})
    with pytest.raises(SettingsError, match="reads no URIs; send image_bytes"):
        photo_sources(photos, read_uris=False)
    photos["image_uri"] = None
    assert photo_sources(photos, read_uris=False)[0] == PhotoSource(None, b"photo")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"photo": [b"photo"]}, "neither a column image_bytes nor a column image_uri"),
        ({"image_bytes": [b"", "$$$"]}, "row 1: image_bytes is not base64"),
        ({"image_bytes": ["cGhvdG8=", "cGhvdG8"]}, "row 1: image_bytes is not base64"),
        ({"image_bytes": ["data:image/jpeg,photo"]}, "row 0: image_bytes is not base64"),
        ({"image_bytes": ["https://shop.example/a.jpg"]}, "row 0: image_bytes is not base64"),
        ({"image_bytes": ["cGhvdG8=é"]}, "row 0: image_bytes is not base64"),
        ({"image_uri": [b"photo.jpg"]}, "row 0: image_uri is of type bytes, not str"),
        ({"image_bytes": [1.5]}, "row 0: image_bytes is of type float, not bytes"),
    ],
)
def test_unusable_columns_and_values(columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(DataContractError, match=message):
        photo_sources(pd.DataFrame(columns), read_uris=True)


@pytest.mark.parametrize(
    "text",
    [
        "cGhvdG8=",
        "cGhv\ndG8=\n",
        "data:image/jpeg;base64,cGhvdG8=",
        "DATA:;BASE64,cGhvdG8=",
        "data:image/jpeg;name=a.jpg;base64,cGhv\r\ndG8=",
    ],
)
def test_base64(text: str) -> None:
    photos = pd.DataFrame({"image_bytes": [text, None, ""]})
    assert [source.data for source in photo_sources(photos, read_uris=False)] == [
        b"photo",
        None,
        b"",
    ]


def test_lists_in_a_row_are_rows() -> None:
    photos = pd.DataFrame(
        {"listing_id": [["a", "b"], "c"], "image_bytes": [["eA==", None], "eQ=="]}
    )
    rows = photo_rows(photos)
    assert listing_ids(rows) == ["a", "b", "c"]
    assert [s.data for s in photo_sources(rows, read_uris=False)] == [b"x", None, b"y"]
    one = photo_rows(pd.DataFrame({"listing_id": ["a"], "image_bytes": [["eA==", "eQ=="]]}))
    assert (listing_ids(one), image_indexes(one)) == (["a", "a"], [0, 1])
    with pytest.raises(DataContractError, match="listing_id, image_bytes: of different lengths"):
        photo_rows(pd.DataFrame({"listing_id": [["a", "b"]], "image_bytes": [["eA=="]]}))


def test_image_indexes() -> None:
    def indexes(*values: object) -> list[int]:
        listings = ["a", "b", "a"][: len(values)]
        return image_indexes(pd.DataFrame({"listing_id": listings, "image_index": values}))

    assert image_indexes(pd.DataFrame({"listing_id": ["a", "b", "a"]})) == [0, 0, 1]
    assert indexes(None, None, None) == [0, 0, 1]
    assert indexes(3, 0, 2147483647) == [3, 0, 2147483647]
    assert indexes(3.0, 1.0) == [3, 1]
    for value in (None, 1.5, -1, "first", "1", True, 1 << 31, float("inf")):
        with pytest.raises(DataContractError, match="row 1: image_index is "):
            indexes(0, value)


def test_listing_ids() -> None:
    assert listing_ids(pd.DataFrame({"listing_id": ["b", "a", "b"]})) == ["b", "a", "b"]
    for value, message in ((None, "is missing"), (7, "is of type int, not str")):
        with pytest.raises(DataContractError, match=f"row 1: listing_id {message}"):
            listing_ids(pd.DataFrame({"listing_id": ["a", value]}))
