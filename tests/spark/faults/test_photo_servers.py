"""Photos from a server that is slow, fails, sends half, sends nothing, or is not there."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.categories import Decision
from tests.support.manifest_rows import Categorize, DrawPhoto, ReadCategories, WriteManifest, row
from tests.support.photo_server import ALLOWED, PhotoHandler, photo_server

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Set when the test ends, for answers that never come."""
    event = threading.Event()
    yield event
    event.set()


def test_every_listing_comes_out_whatever_the_server_does(
    draw_photo: DrawPhoto,
    write_manifest: WriteManifest,
    categorize: Categorize,
    read_categories: ReadCategories,
    over: threading.Event,
    tmp_path: Path,
) -> None:
    photo = draw_photo("warm/red", spread=5)

    def slow(handler: PhotoHandler, photo: bytes, count: int) -> None:
        over.wait(0.5)
        handler.serve(photo)

    def trickles(handler: PhotoHandler, photo: bytes, count: int) -> None:
        handler.answer(200, photo[:10], len(photo))
        for i in range(10, len(photo)):
            over.wait(0.3)
            handler.wfile.write(photo[i : i + 1])

    def fails(handler: PhotoHandler, photo: bytes, count: int) -> None:
        handler.answer(500, b"", 0)

    def fails_once(handler: PhotoHandler, photo: bytes, count: int) -> None:
        handler.answer(500, b"", 0) if count == 1 else handler.serve(photo)

    def half(handler: PhotoHandler, photo: bytes, count: int) -> None:
        handler.answer(200, photo[: len(photo) // 2], len(photo))
        handler.close_connection = True

    def half_once(handler: PhotoHandler, photo: bytes, count: int) -> None:
        half(handler, photo, count) if count == 1 else handler.serve(photo)

    def half_said_to_be_all(handler: PhotoHandler, photo: bytes, count: int) -> None:
        handler.serve(photo[: len(photo) // 2])

    def never_answers(handler: PhotoHandler, photo: bytes, count: int) -> None:
        over.wait()

    def hangs_up(handler: PhotoHandler, photo: bytes, count: int) -> None:
        handler.close_connection = True

    def is_gone(handler: PhotoHandler, photo: bytes, count: int) -> None:
        handler.answer(404, b"", 0)

    expected = {
        slow: None,
        fails_once: None,
        half_once: None,
        trickles: "read_failed",
        fails: "read_failed",
        half: "read_failed",
        never_answers: "read_failed",
        hangs_up: "read_failed",
        is_gone: "not_found",
        half_said_to_be_all: "truncated",
    }
    behaviours = {behaviour.__name__: behaviour for behaviour in expected}
    photos = dict.fromkeys([*behaviours, "serves"], photo)
    with photo_server(photos, behaviours) as (address, asked):
        served = [row(name, image_uri=f"{address}/{name}") for name in photos]
        served.append(row("is not there", image_uri="http://127.0.0.1:9/photo.jpg"))
        # A listing is as good as its best photo.
        served += [row("mixed", n, image_uri=f"{address}/{name}") for n, name in enumerate(photos)]
        manifest = write_manifest(tmp_path / "manifest", served)
        output = tmp_path / "categories"
        report = categorize(manifest, output, *ALLOWED, "--max-photo-seconds", "5")
    found = {r["listing_id"]: r for r in read_categories(output).to_pylist()}
    reasons = {name: r["reject_reason"] for name, r in found.items()}
    assert reasons == {
        **{behaviour.__name__: reason for behaviour, reason in expected.items()},
        "serves": None,
        "is not there": "read_failed",
        "mixed": None,
    }
    assert found["serves"]["decision"] == Decision.ASSIGNED
    for name in ("slow", "fails_once", "half_once"):
        assert found[name]["score"] == found["serves"]["score"]
    assert asked["fails"] == 6, "three times, for two listings"
    assert found["mixed"]["images_used"] == 4
    assert report["photos_rejected"] == len(served) - report["photos_used"]
