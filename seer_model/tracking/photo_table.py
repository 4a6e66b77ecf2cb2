"""Photos as rows of a data frame, the form in which MLflow passes them to a model.

MLflow checks no value: it would decode base64 leniently, or not at all, by the format of a request,
and turn null into the text "None". So the columns have no type in the signature, and are read here.
"""

import base64
import re
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import pandas as pd

from schemas.errors import DataContractError, SettingsError
from seer_model.files import short_repr
from seer_model.photos.source import PhotoSource

__all__ = ["READ_IMAGE_URIS", "image_indexes", "listing_ids", "photo_rows", "photo_sources"]

READ_IMAGE_URIS = "read_image_uris"
"""Name of the model's setting that allows it to read `image_uri`; off by default."""

_DATA_URI = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)


def photo_rows(given: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with a row for each photo.

    MLflow's server passes `{"inputs": {column: values}}` as one row of lists.

    Raises:
        DataContractError: Lists of a row differ in length.
    """
    lists = [name for name in given if given[name].map(lambda value: isinstance(value, list)).any()]
    if not lists:
        return given
    try:
        return given.explode(lists, ignore_index=True)
    except ValueError as error:
        raise DataContractError(f"{', '.join(map(str, lists))}: of different lengths") from error


def listing_ids(photos: pd.DataFrame) -> list[str]:
    """Return the column `listing_id`.

    Raises:
        DataContractError: A value is missing or not a string.
    """
    listings = []
    for row, listing in enumerate(_values(photos, "listing_id", str)):
        if listing is None:
            raise DataContractError(f"row {row}: listing_id is missing")
        listings.append(listing)
    return listings


def image_indexes(photos: pd.DataFrame) -> list[int]:
    """Return the column `image_index`; without it, number the photos of each listing in order.

    Raises:
        DataContractError: A value is missing or not a whole number from 0 to 2**31 - 1.
    """
    if "image_index" not in photos or photos["image_index"].isna().all():
        order: list[int] = photos.groupby("listing_id").cumcount().tolist()
        return order
    indexes = []
    for row, value in enumerate(photos["image_index"]):
        whole = isinstance(value, Integral) or (isinstance(value, Real) and value == value // 1)
        if isinstance(value, bool) or not whole or not 0 <= value < 1 << 31:
            raise DataContractError(
                f"row {row}: image_index is {short_repr(value)}, not a whole number from 0 to "
                "2147483647"
            )
        indexes.append(int(value))
    return indexes


def photo_sources(photos: pd.DataFrame, *, read_uris: bool) -> list[PhotoSource]:
    """Return each row's photo source; one without a photo is rejected later, as `no_photo`.

    Args:
        photos: A column `image_bytes` (bytes, or their base64, also as a `data:` URI), `image_uri`
            (string), or both.
        read_uris: Whether URIs may be read. If they may, a client of a served model can make the
            server read its own files and network (SSRF).

    Raises:
        DataContractError: Both columns are missing, a value has the wrong type, or a text is not
            base64.
        SettingsError: There is a URI, and `read_uris` is false.
    """
    if not {"image_bytes", "image_uri"} & set(photos.columns):
        raise DataContractError("neither a column image_bytes nor a column image_uri")
    uris = list(_values(photos, "image_uri", str))
    if not read_uris and any(uri is not None for uri in uris):
        raise SettingsError(
            "image_uri: this model reads no URIs; send image_bytes, or load the model with its "
            f"setting {READ_IMAGE_URIS} turned on"
        )
    data = _values(photos, "image_bytes", bytes, bytearray, str)
    return [
        PhotoSource(uri, None if photo is None else _decode(row, photo))
        for row, (uri, photo) in enumerate(zip(uris, data, strict=True))
    ]


def _decode(row: int, photo: bytes | bytearray | str) -> bytes:
    if not isinstance(photo, str):
        return bytes(photo)
    try:
        # Encoders break lines, which a strict decoder refuses.
        return base64.b64decode("".join(_DATA_URI.sub("", photo, count=1).split()), validate=True)
    except ValueError:
        raise DataContractError(f"row {row}: image_bytes is not base64") from None


def _values(photos: pd.DataFrame, name: str, *kinds: type) -> Iterator[Any]:
    """Yield a column's values, None for missing ones; all are missing if there is no column."""
    if name not in photos:
        yield from [None] * len(photos)
        return
    column = photos[name]
    for row, (value, missing) in enumerate(zip(column, column.isna(), strict=True)):
        if missing:
            yield None
        elif isinstance(value, kinds):
            yield value
        else:
            raise DataContractError(
                f"row {row}: {name} is of type {type(value).__name__}, not {kinds[0].__name__}"
            )
