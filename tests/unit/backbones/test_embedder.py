"""Photos to embeddings: in order, bit-identical in any batch, and with bounded prefetch."""

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from schemas.rejects import RejectReason
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.embedder import EmbeddedPhoto, PhotoEmbedder, TextLine
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.runtimes.base import Features
from seer_model.backbones.trunk import normalise
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from seer_model.photos.pixels import Pixels, prepare_photo, resize_square
from seer_model.photos.source import PhotoSource
from seer_model.photos.square import load_whole

PhotoBytes = Callable[..., bytes]
BATCH = 4
LIMITS = PhotoLimits(max_bytes=50_000)
NO_PHOTO = PhotoSource(None, None)


@pytest.fixture(scope="module")
def embedder(backbone: Backbone) -> PhotoEmbedder:
    return PhotoEmbedder.open(backbone, threads=2, batch_size=BATCH, limits=LIMITS)


@pytest.fixture(scope="module")
def photos(photo_bytes: PhotoBytes) -> list[PhotoSource]:
    """Nine photos, the first the slowest to decode."""
    sizes = [(900, 700), (80, 72), (64, 64), (40, 90), (70, 70)]
    return [PhotoSource(None, photo_bytes(i, sizes[i % len(sizes)])) for i in range(9)]


@pytest.fixture(scope="module")
def vectors(embedder: PhotoEmbedder, photos: list[PhotoSource]) -> list[bytes]:
    """Each photo's vector when it is embedded by itself."""
    return [bits(embedder.embed([photo]))[0] for photo in photos]


def bits(embedded: Iterator[EmbeddedPhoto]) -> list[bytes]:
    found = []
    for vector, reason, *_ in embedded:
        assert reason is None
        assert vector is not None
        found.append(vector.tobytes())
    return found


def cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# Order and values


def test_vectors_are_those_of_the_trunk(
    backbone: Backbone, embedder: PhotoEmbedder, photos: list[PhotoSource]
) -> None:
    pixels = [
        prepare_photo(p.data or b"", backbone.preprocessing.image_size, LIMITS) for p in photos
    ]
    with torch.inference_mode():
        inputs = normalise(torch.from_numpy(np.stack(pixels)), backbone.preprocessing)
        expected = backbone.build()(inputs).numpy()
    for (vector, *_), features in zip(embedder.embed(photos), expected, strict=True):
        assert vector is not None
        assert (vector.dtype, vector.shape) == (np.float16, (backbone.width,))
        assert cosine(vector, features) >= 0.9999


def test_photos_keep_their_order(
    embedder: PhotoEmbedder, photos: list[PhotoSource], vectors: list[bytes]
) -> None:
    assert len(set(vectors)) == len(photos)
    assert bits(embedder.embed(photos)) == vectors


def test_an_address_and_its_bytes_give_the_same_vector(
    embedder: PhotoEmbedder, photos: list[PhotoSource], vectors: list[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "a photo.jpg"
    path.write_bytes(photos[1].data or b"")
    addresses = [PhotoSource(str(path), None), PhotoSource(path.as_uri(), None)]
    assert bits(embedder.embed(addresses)) == [vectors[1]] * 2


def test_no_photos_give_no_vectors(embedder: PhotoEmbedder) -> None:
    assert list(embedder.embed([])) == []


def test_a_value_beyond_float16_is_clipped(backbone: Backbone, photos: list[PhotoSource]) -> None:
    runtime = Watched(backbone.preprocessing, values=np.array([1e7, -1e7, np.inf], np.float32))
    runtime.go_on.set()
    ((vector, *_),) = PhotoEmbedder(runtime).embed(photos[:1])
    assert vector is not None
    largest = np.finfo(np.float16).max
    assert vector.tolist() == [largest, -largest, largest]


# Bit-identical


@settings(max_examples=25)
@given(st.lists(st.sampled_from([*range(9), None]), min_size=1, max_size=2 * BATCH + 1))
def test_neighbours_do_not_change_a_vector(
    embedder: PhotoEmbedder,
    photos: list[PhotoSource],
    vectors: list[bytes],
    choice: list[int | None],
) -> None:
    sources = [NO_PHOTO if i is None else photos[i] for i in choice]
    found = list(embedder.embed(sources))
    assert [None if v is None else v.tobytes() for v, *_ in found] == [
        None if i is None else vectors[i] for i in choice
    ]


def test_threads_and_batch_size_do_not_change_a_vector(
    backbone: Backbone, photos: list[PhotoSource], vectors: list[bytes]
) -> None:
    embedder = PhotoEmbedder.open(backbone, threads=3, batch_size=1)
    assert bits(embedder.embed(photos)) == vectors


# Rejects


def sources_by_reason(photo_bytes: PhotoBytes, folder: Path) -> dict[RejectReason, PhotoSource]:
    jpeg = photo_bytes(0, (300, 200))
    png = bytearray(photo_bytes(0, form="PNG"))
    png[40:120] = bytes(80)
    return {
        RejectReason.NO_PHOTO: NO_PHOTO,
        RejectReason.AMBIGUOUS_SOURCE: PhotoSource(str(folder), jpeg),
        RejectReason.UNSUPPORTED_SCHEME: PhotoSource("nosuchstore://photos/1.jpg", None),
        RejectReason.NOT_ALLOWED: PhotoSource("http://169.254.169.254/1.jpg", None),
        RejectReason.NOT_FOUND: PhotoSource(str(folder / "nosuch.jpg"), None),
        # Longer than the 255 bytes of a file name, which is an error of its own.
        RejectReason.READ_FAILED: PhotoSource(str(folder / ("x" * 300)), None),
        RejectReason.KEY_MISMATCH: PhotoSource(None, jpeg, "0" * 64),
        RejectReason.TOO_LARGE: PhotoSource(None, bytes(LIMITS.max_bytes + 1)),
        RejectReason.EMPTY_FILE: PhotoSource(None, b""),
        RejectReason.NOT_AN_IMAGE: PhotoSource(None, b"<html>404</html>"),
        RejectReason.TRUNCATED: PhotoSource(None, jpeg[: len(jpeg) // 2]),
        RejectReason.UNREADABLE: PhotoSource(None, bytes(png)),
    }


def test_every_reject_reason_is_reached_in_order(
    embedder: PhotoEmbedder,
    photos: list[PhotoSource],
    vectors: list[bytes],
    photo_bytes: PhotoBytes,
    tmp_path: Path,
) -> None:
    bad = sources_by_reason(photo_bytes, tmp_path)
    assert bad.keys() == set(RejectReason)
    sources = [source for reject in bad.values() for source in (reject, photos[1])]
    found = list(embedder.embed(sources))
    assert [photo.reject_reason for photo in found[::2]] == list(bad)
    assert all(photo.vector is None for photo in found[::2])
    assert bits(iter(found[1::2])) == [vectors[1]] * len(bad)


def test_only_rejects(embedder: PhotoEmbedder) -> None:
    sources = [PhotoSource(None, b"")] * (BATCH + 1)
    assert list(embedder.embed(sources)) == [EmbeddedPhoto(None, RejectReason.EMPTY_FILE)] * (
        BATCH + 1
    )


def test_an_error_that_is_not_the_photos_is_raised(
    embedder: PhotoEmbedder, monkeypatch: pytest.MonkeyPatch, photos: Sequence[PhotoSource]
) -> None:
    def broken(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr("seer_model.backbones.embedder.resize_square", broken)
    with pytest.raises(MemoryError):
        list(embedder.embed(photos))


# Signals


class Reader:
    """Reads the number of rows of a photo."""

    short_side = 96

    def read(self, pixels: Pixels) -> list[TextLine]:
        return [TextLine(str(len(pixels)), 1.0, 0.5)]


@pytest.mark.parametrize("isolated", [False, True])
def test_signals_are_read_in_the_same_pass_and_change_no_vector(
    embedder: PhotoEmbedder, photos: list[PhotoSource], vectors: list[bytes], isolated: bool
) -> None:
    found = list(
        embedder.embed([*photos, NO_PHOTO], isolated=isolated, hashed=True, reader=Reader())
    )
    assert [each.vector is not None and each.vector.tobytes() for each in found[:-1]] == vectors
    for source, each in zip(photos, found, strict=False):
        assert each.hashes is not None
        assert len(each.hashes.whole) == 32
        rows = min(96, *Image.open(io.BytesIO(source.data or b"")).size)
        assert each.text is not None
        assert int(each.text[0].line) >= rows
    assert found[-1] == EmbeddedPhoto(None, RejectReason.NO_PHOTO)
    plain = next(iter(embedder.embed(photos[:1], isolated=isolated)))
    assert (plain.hashes, plain.text) == (None, None)


def test_reading_the_text_waits_for_no_memory_of_its_own_photo(backbone: Backbone) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (600, 400), "red").save(buffer, "PNG")
    source = PhotoSource(None, buffer.getvalue())
    needed = next(
        size
        for size in (1 << power for power in range(16, 30))
        if is_decoded(source, PhotoLimits(max_decode_memory=size))
    )
    embedder = PhotoEmbedder.open(backbone, threads=2, limits=PhotoLimits(max_decode_memory=needed))
    read: list[EmbeddedPhoto] = []
    thread = threading.Thread(
        target=lambda: read.extend(embedder.embed([source] * 8, reader=Reader())), daemon=True
    )
    thread.start()
    thread.join(timeout=60)
    assert [each.text is not None for each in read] == [True] * 8


def is_decoded(source: PhotoSource, limits: PhotoLimits) -> bool:
    try:
        load_whole(source, 96, limits)
    except PhotoRejected:
        return False
    return True


# Backpressure


@pytest.mark.parametrize("taken", [1, BATCH, BATCH + 1, 3 * BATCH])
def test_prefetch_from_an_endless_input_is_bounded(
    embedder: PhotoEmbedder, photos: list[PhotoSource], taken: int
) -> None:
    asked = count()

    def endless() -> Iterator[PhotoSource]:
        while True:
            next(asked)
            yield photos[1]

    with closing(embedder.embed(endless())) as embedded:
        assert len(list(islice(embedded, taken))) == taken
    # Batches yielded, in flight and prefetched.
    assert next(asked) <= (-(-taken // BATCH) + 2 + 4) * BATCH + 1


def test_rejects_do_not_wait_for_a_good_photo(embedder: PhotoEmbedder) -> None:
    asked = count()

    def endless() -> Iterator[PhotoSource]:
        while True:
            next(asked)
            yield NO_PHOTO

    with closing(embedder.embed(endless())) as embedded:
        assert next(embedded) == EmbeddedPhoto(None, RejectReason.NO_PHOTO)
    assert next(asked) <= 20 * BATCH


def test_nothing_is_taken_before_the_first_next(embedder: PhotoEmbedder) -> None:
    def never() -> Iterator[PhotoSource]:
        raise AssertionError
        yield

    embedder.embed(never())


class Watched:
    """A runtime that counts started batches, and finishes none before the test says so.

    Its features are a photo's first pixel, or `values`.
    """

    name = "watched"
    batch_size = BATCH
    width = 3

    def __init__(self, preprocessing: Preprocessing, values: Features | None = None) -> None:
        self.preprocessing = preprocessing
        self.values = values
        self.begun = 0
        self.go_on = threading.Event()

    def start(self, pixels: Pixels) -> Callable[[], Features]:
        self.begun += 1
        features = pixels.reshape(len(pixels), -1)[:, :3].astype(np.float32)
        if self.values is not None:
            features[:] = self.values

        def wait() -> Features:
            assert self.go_on.wait(timeout=30)
            return features

        return wait


def test_the_next_batches_are_decoded_and_started_while_one_is_computed(
    backbone: Backbone, photos: list[PhotoSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Watched(backbone.preprocessing)
    numbers = count(1)

    def counted(*args: Any) -> Pixels:
        if next(numbers) == 5 * BATCH:
            runtime.go_on.set()  # The first batch finishes once the fifth is decoded.
        return resize_square(*args)

    monkeypatch.setattr("seer_model.backbones.embedder.resize_square", counted)
    with closing(PhotoEmbedder(runtime).embed(islice(cycle(photos), 8 * BATCH))) as embedded:
        next(embedded)
        assert runtime.begun == 3


def test_closing_drops_photos_not_yet_started(
    backbone: Backbone, photos: list[PhotoSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Watched(backbone.preprocessing)
    runtime.go_on.set()
    numbers = count(1)
    stuck, closed = threading.Event(), threading.Event()
    # A decoder of an embedder before this one may still be at work on its last photo.
    others = threading.enumerate()

    def slow(*args: Any) -> Pixels:
        if threading.current_thread() in others:
            return resize_square(*args)
        if next(numbers) == 3 * BATCH + 1:
            stuck.set()
            assert closed.wait(timeout=30)
        return resize_square(*args)

    monkeypatch.setattr("seer_model.backbones.embedder.resize_square", slow)
    embedder = PhotoEmbedder(runtime)
    with closing(embedder.embed(cycle(photos))) as embedded:
        next(embedded)
        assert stuck.wait(timeout=30)
    closed.set()
    # The decoder is free again and skipped the dropped photos.
    assert len(list(embedder.embed(photos))) == len(photos)
    assert next(numbers) <= 3 * BATCH + 2 + len(photos)
