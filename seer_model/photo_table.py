"""Photos as rows of a data frame, which is how MLflow hands them to a model."""

from collections.abc import Iterator
from typing import TypeVar

import pandas as pd

from schemas.errors import DataContractError, SettingsError
from seer_model.photo_source import PhotoSource

_Value = TypeVar("_Value", str, bytes)

__all__ = ["READ_IMAGE_URIS", "listing_ids", "photo_sources"]

READ_IMAGE_URIS = "read_image_uris"
"""Name of the setting that lets a model read addresses; it is off unless someone turns it on."""


def listing_ids(photos: pd.DataFrame) -> list[str]:
    """The column `listing_id`.

    Raises:
        DataContractError: A value is missing or not a string.
    """
    listings = []
    for row, listing in enumerate(_values(photos, "listing_id", str)):
        if listing is None:
            raise DataContractError(f"row {row}: listing_id is missing")
        listings.append(listing)
    return listings


def photo_sources(photos: pd.DataFrame, *, read_uris: bool) -> list[PhotoSource]:
    """Where the photo of each row is.

    Args:
        photos: A column `image_bytes` (bytes), `image_uri` (string), or both.
        read_uris: Whether addresses may be read. Who may call a model on another machine could
            otherwise have it read that machine's files and network.

    Raises:
        DataContractError: Neither column is there, or a value is of another type.
        SettingsError: There is an address, and none may be read.
    """
    if not {"image_bytes", "image_uri"} & set(photos.columns):
        raise DataContractError("there is neither a column image_bytes nor a column image_uri")
    uris = list(_values(photos, "image_uri", str))
    if not read_uris and any(uri is not None for uri in uris):
        raise SettingsError(
            "image_uri: this model reads no addresses; send image_bytes, or load the model with "
            f"its setting {READ_IMAGE_URIS} turned on"
        )
    data = _values(photos, "image_bytes", bytes)
    return [PhotoSource(uri, photo) for uri, photo in zip(uris, data, strict=True)]


def _values(photos: pd.DataFrame, name: str, kind: type[_Value]) -> Iterator[_Value | None]:
    """The values of a column, None for the missing ones; all are missing where there is none."""
    if name not in photos:
        yield from [None] * len(photos)
        return
    column = photos[name]
    for row, (value, missing) in enumerate(zip(column, column.isna(), strict=True)):
        if missing:
            yield None
        elif isinstance(value, bytearray) and kind is bytes:
            yield kind(value)
        elif isinstance(value, kind):
            yield value
        else:
            raise DataContractError(
                f"row {row}: {name} is of type {type(value).__name__}, not {kind.__name__}"
            )
