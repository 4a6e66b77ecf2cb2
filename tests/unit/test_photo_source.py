"""A photo by its address or its bytes."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.rejects import RejectReason
from seer_model.byte_budget import ByteBudget
from seer_model.photo_source import PhotoSource, fetch_photo, load_photo
from seer_model.photos import PhotoLimits, PhotoRejected
from seer_model.preprocessing import Preprocessing

SMALL = Preprocessing(image_size=8)


@pytest.fixture
def photo() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (10, 20, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def test_bytes_and_their_file_give_the_same_pixels(photo: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(photo)
    for source in (PhotoSource(None, photo), PhotoSource(path.as_uri(), None)):
        assert fetch_photo(source, PhotoLimits()) == photo
        pixels = load_photo(source, SMALL, PhotoLimits(), ByteBudget(1))
        assert pixels.shape == (8, 8, 3)
        assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[10, 20, 30]]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (PhotoSource(None, None), RejectReason.NO_PHOTO),
        (PhotoSource("a.jpg", b"1"), RejectReason.AMBIGUOUS_SOURCE),
        (PhotoSource("", b""), RejectReason.AMBIGUOUS_SOURCE),
        (PhotoSource("file:///no/such/photo.jpg", None), RejectReason.NOT_FOUND),
        (PhotoSource(None, b""), RejectReason.EMPTY_FILE),
    ],
)
def test_what_is_no_photo_is_rejected(source: PhotoSource, reason: RejectReason) -> None:
    with pytest.raises(PhotoRejected) as caught:
        load_photo(source, SMALL, PhotoLimits())
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (PhotoSource(None, None), RejectReason.NO_PHOTO),
        (PhotoSource("a.jpg", b"1"), RejectReason.AMBIGUOUS_SOURCE),
        (PhotoSource("file:///no/such/photo.jpg", None), RejectReason.NOT_FOUND),
    ],
)
def test_what_has_no_bytes_is_not_fetched(source: PhotoSource, reason: RejectReason) -> None:
    with pytest.raises(PhotoRejected) as caught:
        fetch_photo(source, PhotoLimits())
    assert caught.value.reason is reason


def test_bytes_are_fetched_whatever_they_are() -> None:
    assert fetch_photo(PhotoSource(None, b""), PhotoLimits()) == b""
