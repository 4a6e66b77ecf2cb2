"""A photo by its address or its bytes, and the one way from there to pixels."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.rejects import RejectReason
from seer_model.byte_budget import ByteBudget
from seer_model.photo_reading import read_photo
from seer_model.photos import PhotoLimits, PhotoRejected
from seer_model.preprocessing import Preprocessing, prepare_photo

__all__ = ["PhotoSource", "fetch_photo", "load_photo"]


class PhotoSource(NamedTuple):
    """Where a photo is: exactly one of the two must be set."""

    uri: str | None
    data: bytes | None


def fetch_photo(source: PhotoSource, limits: PhotoLimits) -> bytes:
    """Get the bytes of a photo, see `read_photo`; those of its row as they are.

    Raises:
        PhotoRejected: They cannot be read, or `source` is none.
    """
    if source.uri is not None and source.data is not None:
        raise PhotoRejected(RejectReason.AMBIGUOUS_SOURCE)
    data = source.data if source.uri is None else read_photo(source.uri, limits)
    if data is None:
        raise PhotoRejected(RejectReason.NO_PHOTO)
    return data


def load_photo(
    source: PhotoSource,
    preprocessing: Preprocessing,
    limits: PhotoLimits,
    memory: ByteBudget | None = None,
) -> npt.NDArray[np.uint8]:
    """Fetch a photo and prepare it, see `fetch_photo` and `prepare_photo`.

    Raises:
        PhotoRejected: It cannot be used, or `source` is none.
    """
    return prepare_photo(fetch_photo(source, limits), preprocessing, limits, memory)
