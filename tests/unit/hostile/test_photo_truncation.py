"""A photo cut at any byte is refused, or is all there; never half a photo."""

import numpy as np
import pytest
from PIL import Image

from schemas.rejects import RejectReason
from seer_model.photos import PhotoRejected, decode_photo
from tests.unit.encoded_photos import FULL, LIMITS, decoded, encode
from tests.unit.hostile.photo_parts import card

ENDS = {"PNG": 21, "GIF": 2}
"""Bytes without which all pixels are there: checksum and end of a PNG, end marks of a GIF."""


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("MPO", {}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", {}),
    ],
)
def test_photo_cut_at_any_byte(form: str, options: dict[str, object]) -> None:
    data = encode(card().resize((40, 28), Image.Resampling.BICUBIC), form, **options)
    whole = decoded(data)
    reasons = []
    for end in range(len(data)):
        try:
            image = decode_photo(data[:end], FULL, LIMITS)
        except PhotoRejected as rejected:
            reasons.append(rejected.reason)
        else:
            assert end >= len(data) - ENDS.get(form, 0), f"{end} of {len(data)} bytes suffice"
            assert np.array_equal(image, whole)
    assert reasons[0] is RejectReason.EMPTY_FILE
    signature = reasons.count(RejectReason.NOT_AN_IMAGE)
    assert set(reasons[1 : 1 + signature]) == {RejectReason.NOT_AN_IMAGE}
    assert signature < 16
    cut = reasons[1 + signature :]
    assert set(cut) <= {RejectReason.TRUNCATED, RejectReason.UNREADABLE}
    share = {"TIFF": 0.0, "WEBP": 1.0}.get(form, 0.9)  # That of a TIFF is taken for damage.
    assert cut.count(RejectReason.TRUNCATED) >= share * len(cut)
