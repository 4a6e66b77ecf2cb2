"""`load_photo`, from a source to pixels. For resampling, see `test_preprocessing`."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.rejects import RejectReason
from seer_model.photos.byte_budget import ByteBudget
from seer_model.photos.fetch import fetch_photo
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from seer_model.photos.pixels import load_photo
from seer_model.photos.source import PhotoSource
from tests.support.encoded_photos import encode

PHOTO = encode(Image.new("RGB", (20, 10), (10, 20, 30)), "PNG")


def test_bytes_and_a_file_give_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(PHOTO)
    key = sha256(PHOTO).hexdigest()
    for source in (
        PhotoSource(None, PHOTO),
        PhotoSource(path.as_uri(), None),
        PhotoSource(path.as_uri(), None, key.upper()),
        PhotoSource(None, PHOTO, ""),
    ):
        assert fetch_photo(source, PhotoLimits()) == PHOTO
        pixels = load_photo(source, 8, PhotoLimits(), ByteBudget(1))
        assert pixels.shape == (8, 8, 3)
        assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[10, 20, 30]]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (PhotoSource(None, None), RejectReason.NO_PHOTO),
        (PhotoSource("a.jpg", b"1"), RejectReason.AMBIGUOUS_SOURCE),
        (PhotoSource("", b""), RejectReason.AMBIGUOUS_SOURCE),
        (PhotoSource("file:///no/such/photo.jpg", None), RejectReason.NOT_FOUND),
        (PhotoSource(None, PHOTO, sha256(b"another").hexdigest()), RejectReason.KEY_MISMATCH),
        (PhotoSource(None, PHOTO, "etag-1"), RejectReason.KEY_MISMATCH),
    ],
)
def test_a_source_without_bytes_is_rejected(source: PhotoSource, reason: RejectReason) -> None:
    for read in (
        lambda: fetch_photo(source, PhotoLimits()),
        lambda: load_photo(source, 8, PhotoLimits()),
    ):
        with pytest.raises(PhotoRejected) as caught:
            read()
        assert caught.value.reason is reason


def test_an_empty_photo_is_fetched_and_then_rejected() -> None:
    empty = PhotoSource(None, b"")
    assert fetch_photo(empty, PhotoLimits()) == b""
    with pytest.raises(PhotoRejected) as caught:
        load_photo(empty, 8, PhotoLimits())
    assert caught.value.reason is RejectReason.EMPTY_FILE
