"""Photos to vectors: in order, to the bit, and never more of the input than is being worked on."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.rejects import RejectReason
from seer_model.backbone import Backbone
from seer_model.embedder import EmbeddedPhoto, PhotoEmbedder
from seer_model.photo_source import PhotoSource
from seer_model.photos import PhotoLimits
from seer_model.preprocessing import normalise, prepare_photo

PhotoBytes = Callable[..., bytes]
BATCH = 4
LIMITS = PhotoLimits(max_bytes=50_000)
NO_PHOTO = PhotoSource(None, None)


@pytest.fixture(scope="module")
def embedder(backbone: Backbone) -> PhotoEmbedder:
    return PhotoEmbedder(backbone, batch_size=BATCH, decode_threads=2, limits=LIMITS)


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
    for vector, reason in embedded:
        assert reason is None
        assert vector is not None
        found.append(vector.tobytes())
    return found


# Order and values


def test_vectors_are_those_of_the_trunk(backbone: Backbone, embedder: PhotoEmbedder) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    with torch.inference_mode():
        inputs = normalise(torch.from_numpy(pixels), backbone.preprocessing)
        expected = backbone.build()(inputs).numpy()
    features = embedder.embed_pixels(list(pixels))
    assert features.dtype == np.float16
    assert features.shape == (3, backbone.width)
    np.testing.assert_allclose(features, expected, rtol=2e-3, atol=1e-4)
    assert len({row.tobytes() for row in features}) == 3


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


def test_no_photos_no_vectors(embedder: PhotoEmbedder) -> None:
    assert list(embedder.embed([])) == []


def test_a_value_beyond_float16_is_clipped(backbone: Backbone, photos: list[PhotoSource]) -> None:
    last = {name: t * 1e7 for name, t in backbone.weights.items() if name.endswith("bn.bias")}
    biased = {name: torch.full_like(t, 1e7) for name, t in last.items()}
    huge = PhotoEmbedder(replace(backbone, weights={**backbone.weights, **biased}), batch_size=1)
    ((vector, _),) = huge.embed(photos[:1])
    assert vector is not None
    assert np.isfinite(vector).all()
    assert vector.max() == np.finfo(np.float16).max


# The same to the bit


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
    assert [None if v is None else v.tobytes() for v, _ in found] == [
        None if i is None else vectors[i] for i in choice
    ]


@pytest.mark.parametrize("decode_threads", [1, 3, 8])
def test_decode_threads_do_not_change_a_vector(
    backbone: Backbone, photos: list[PhotoSource], vectors: list[bytes], decode_threads: int
) -> None:
    embedder = PhotoEmbedder(backbone, batch_size=BATCH, decode_threads=decode_threads)
    assert bits(embedder.embed(photos)) == vectors


def test_neighbours_do_not_change_a_vector_on_two_threads(
    embedder: PhotoEmbedder, photos: list[PhotoSource]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        alone = [bits(embedder.embed([photo]))[0] for photo in photos[:3]]
        assert bits(embedder.embed(photos[:3])) == alone
        assert bits(embedder.embed(photos[2::-1])) == alone[::-1]
    finally:
        torch.set_num_threads(threads)


# Rejects


def sources_by_reason(photo_bytes: PhotoBytes, folder: Path) -> dict[RejectReason, PhotoSource]:
    jpeg = photo_bytes(0, (300, 200))
    png = bytearray(photo_bytes(0, form="PNG"))
    png[40:120] = bytes(80)
    return {
        RejectReason.NO_PHOTO: NO_PHOTO,
        RejectReason.AMBIGUOUS_SOURCE: PhotoSource(str(folder), jpeg),
        RejectReason.UNSUPPORTED_SCHEME: PhotoSource("nosuchstore://photos/1.jpg", None),
        RejectReason.NOT_FOUND: PhotoSource(str(folder / "nosuch.jpg"), None),
        # The name of a file may have 255 bytes; asking for a longer one is another error.
        RejectReason.READ_FAILED: PhotoSource(str(folder / ("x" * 300)), None),
        RejectReason.TOO_LARGE: PhotoSource(None, bytes(LIMITS.max_bytes + 1)),
        RejectReason.EMPTY_FILE: PhotoSource(None, b""),
        RejectReason.NOT_AN_IMAGE: PhotoSource(None, b"<html>404</html>"),
        RejectReason.TRUNCATED: PhotoSource(None, jpeg[: len(jpeg) // 2]),
        RejectReason.UNREADABLE: PhotoSource(None, bytes(png)),
    }


def test_every_reason_is_reached_and_stays_in_its_place(
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
    assert [reason for _, reason in found[::2]] == list(bad)
    assert all(vector is None for vector, _ in found[::2])
    assert bits(iter(found[1::2])) == [vectors[1]] * len(bad)


def test_only_rejects(embedder: PhotoEmbedder) -> None:
    sources = [PhotoSource(None, b"")] * (BATCH + 1)
    assert list(embedder.embed(sources)) == [(None, RejectReason.EMPTY_FILE)] * (BATCH + 1)


def test_what_is_no_fault_of_a_photo_is_raised(
    embedder: PhotoEmbedder, monkeypatch: pytest.MonkeyPatch, photos: Sequence[PhotoSource]
) -> None:
    def broken(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr("seer_model.photo_source.prepare_photo", broken)
    with pytest.raises(MemoryError):
        list(embedder.embed(photos))


# How much of the input it takes


@pytest.mark.parametrize("taken", [1, BATCH, BATCH + 1, 3 * BATCH])
def test_an_endless_input_is_taken_batch_by_batch(embedder: PhotoEmbedder, taken: int) -> None:
    asked = count()

    def endless() -> Iterator[PhotoSource]:
        while True:
            next(asked)
            yield NO_PHOTO

    assert len(list(islice(embedder.embed(endless()), taken))) == taken
    # The batch that is read, and the one that is decoded meanwhile.
    batches_read = -(-taken // BATCH)
    assert next(asked) <= (batches_read + 1) * BATCH


def test_nothing_is_taken_before_it_is_asked_for(embedder: PhotoEmbedder) -> None:
    def never() -> Iterator[PhotoSource]:
        raise AssertionError
        yield

    embedder.embed(never())


def test_the_next_batch_is_decoded_while_one_is_embedded(
    embedder: PhotoEmbedder, photos: list[PhotoSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, all_decoded = count(1), threading.Event()

    def counted(*args: object) -> object:
        if next(numbers) == 2 * BATCH:
            all_decoded.set()
        return prepare_photo(*args)

    monkeypatch.setattr("seer_model.photo_source.prepare_photo", counted)
    embedded = embedder.embed(photos[: 2 * BATCH])
    next(embedded)
    assert all_decoded.wait(timeout=30)
    embedded.close()
