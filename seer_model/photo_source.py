"""A photo by its address or its bytes, and the one way from there to pixels."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.rejects import RejectReason
from seer_model.photos import PhotoLimits, PhotoRejected, read_photo
from seer_model.preprocessing import Preprocessing, prepare_photo

__all__ = ["PhotoSource", "load_photo"]


class PhotoSource(NamedTuple):
    """Where a photo is: exactly one of the two must be set."""

    uri: str | None
    data: bytes | None


def load_photo(
    source: PhotoSource, preprocessing: Preprocessing, limits: PhotoLimits
) -> npt.NDArray[np.uint8]:
    """Read a photo and prepare it, see `prepare_photo`.

    Raises:
        PhotoRejected: It cannot be used, or `source` is none.
    """
    if source.uri is not None and source.data is not None:
        raise PhotoRejected(RejectReason.AMBIGUOUS_SOURCE)
    data = source.data if source.uri is None else read_photo(source.uri, limits)
    if data is None:
        raise PhotoRejected(RejectReason.NO_PHOTO)
    return prepare_photo(data, preprocessing, limits)
