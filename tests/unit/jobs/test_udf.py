"""What a column of the pandas UDF may hold."""

from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from jobs.udf import _listings
from schemas.errors import DataContractError
from seer_model.photos.source import PhotoSource

MISSING = PhotoSource(None, None)
BYTES, URI = PhotoSource(None, b"a"), PhotoSource("a", None)


@pytest.mark.parametrize(
    ("value", "photos"),
    [
        (b"a", [BYTES]),
        (bytearray(b"a"), [BYTES]),
        ("a", [URI]),
        (None, [MISSING]),
        (np.array([b"a", None, b"a"], object), [BYTES, MISSING, BYTES]),
        (np.array(["a"], object), [URI]),
        (["a", "a"], [URI, URI]),
        (np.array([None], object), [MISSING]),
        (np.array([], object), [MISSING]),
    ],
)
def test_a_row_is_a_listing_of_one_or_more_photos(value: object, photos: list[PhotoSource]) -> None:
    assert list(_listings(pd.Series([value, "a"], dtype=object))) == [photos, [URI]]


@pytest.mark.parametrize(
    ("column", "given"),
    [
        ((pd.Series(["a"]), pd.Series(["b"])), "2 columns"),
        (pd.DataFrame({"photo": [b"a"]}), "a struct"),
        (pd.Series([1, 2]), "one of int64"),
        (pd.Series([1.0, None]), "one of float64"),
        (pd.Series([True]), "one of bool"),
        (pd.Series([pd.Timestamp(0)]), "one of datetime64"),
        (pd.Series([date(2026, 11, 25)], dtype=object), "one with a date"),
        (pd.Series([Decimal(1)], dtype=object), "one with a Decimal"),
        (pd.Series([{"a": b"b"}], dtype=object), "one with a dict"),
        (pd.Series([[1, 2]], dtype=object), "one with a int"),
        (pd.Series([[np.array([b"a"], object)]], dtype=object), "one with a ndarray"),
    ],
)
def test_anything_else_is_refused(column: object, given: str) -> None:
    with pytest.raises(DataContractError, match=f"categorize takes one column: .*, not {given}"):
        list(_listings(column))
