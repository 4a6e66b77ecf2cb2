"""A mutated photo is decoded or rejected, silently and quickly.

`make soak` runs far more examples. If a decoder crashes there, the file `last` in pytest's
temporary folder is the photo that did it.
"""

from pathlib import Path
from time import thread_time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seer_model.photos.decode import decode_photo
from seer_model.photos.limits import PhotoRejected
from tests.support.encoded_photos import FULL, LIMITS, SAMPLES
from tests.support.mutations import SOAKING, examples, mutate
from tests.support.odd_photos import ODD_PHOTOS

MAX_BYTES = 20_000


def small_photos() -> dict[str, bytes]:
    odd = {kind: odd.build() for kind, odd in ODD_PHOTOS.items() if "frames" not in kind}
    return {kind: data for kind, data in (SAMPLES | odd).items() if len(data) <= MAX_BYTES}


PHOTOS = small_photos()


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "last"


def assert_decoded_or_rejected(data: bytes, last: Path) -> None:
    if SOAKING:
        last.write_bytes(data)
    before = thread_time()
    for short_side in (FULL, 32):
        try:
            image = decode_photo(data, short_side, LIMITS)
        except PhotoRejected:
            continue
        assert image.mode == "RGB"
        assert min(image.size) > 0
    assert thread_time() - before < 10


@given(st.sampled_from(sorted(PHOTOS)), st.integers(0, 2**32))
@settings(max_examples=examples(800, 150_000), derandomize=not SOAKING)
def test_fuzz_mutated_photos(last: Path, kind: str, seed: int) -> None:
    assert_decoded_or_rejected(mutate(PHOTOS[kind], list(PHOTOS.values()), seed), last)


@given(st.binary(max_size=400), st.sampled_from([b"", *(data[:16] for data in PHOTOS.values())]))
@settings(max_examples=examples(200, 50_000), derandomize=not SOAKING)
@example(b"", b"RIFF\0\0\0\0WEBPVP8X")
@example(b"", b"BM")
def test_fuzz_bytes_after_a_signature(last: Path, data: bytes, prefix: bytes) -> None:
    assert_decoded_or_rejected(prefix + data, last)
