"""Photos from a data frame: what is taken for what, and what is refused."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from schemas.errors import DataContractError, SettingsError
from seer_model.photo_source import PhotoSource
from seer_model.photo_table import listing_ids, photo_sources


def test_bytes_and_addresses() -> None:
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


def test_addresses_are_refused_unless_they_may_be_read() -> None:
    photos = pd.DataFrame({"image_bytes": [b"photo", None], "image_uri": [None, "/etc/hostname"]})
    with pytest.raises(SettingsError, match="reads no addresses; send image_bytes"):
        photo_sources(photos, read_uris=False)
    photos["image_uri"] = None
    assert photo_sources(photos, read_uris=False)[0] == PhotoSource(None, b"photo")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"photo": [b"photo"]}, "neither a column image_bytes nor a column image_uri"),
        ({"image_bytes": [b"", "cGhvdG8="]}, "row 1: image_bytes is of type str, not bytes"),
        ({"image_uri": [b"photo.jpg"]}, "row 0: image_uri is of type bytes, not str"),
        ({"image_bytes": [1.5]}, "row 0: image_bytes is of type float, not bytes"),
    ],
)
def test_what_is_not_a_photo(columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(DataContractError, match=message):
        photo_sources(pd.DataFrame(columns), read_uris=True)


def test_listing_ids() -> None:
    assert listing_ids(pd.DataFrame({"listing_id": ["b", "a", "b"]})) == ["b", "a", "b"]
    for value, message in ((None, "is missing"), (7, "is of type int, not str")):
        with pytest.raises(DataContractError, match=f"row 1: listing_id {message}"):
            listing_ids(pd.DataFrame({"listing_id": ["a", value]}))
