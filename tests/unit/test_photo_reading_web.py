"""Photos are read from a web server, whatever it answers, or does not."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from schemas.rejects import RejectReason
from seer_model import photo_reading
from seer_model.photo_reading import read_photo
from tests.unit.encoded_photos import LIMITS, SAMPLES, verdict_on_address

PHOTO = SAMPLES["JPEG"] * 100


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_reading, "_RETRY_WAITS_S", (0, 0))


class PhotoServer(BaseHTTPRequestHandler):
    """Serves what its path says; `/endless` until the client goes away."""

    requests: list[str]
    released: threading.Event

    def do_GET(self) -> None:
        self.requests.append(self.path)
        name = self.path.strip("/").partition("?")[0]
        if name == "hangs":
            self.released.wait()
        if name in ("hangs", "drops"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
        elif name == "endless":
            self.send_response(200)
            self.end_headers()
            try:
                for _ in itertools.repeat(None):
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                self.released.set()
        else:
            whole = PHOTO if name.endswith(".jpg") else b""
            status, body = int(name) if name.isdigit() else 200, whole
            if name == "unavailable-twice.jpg" and len(self.requests) < 3:
                status = 503
            if name == "half-at-first.jpg" and len(self.requests) < 2:
                body = whole[: len(whole) // 2]
            self.send_response(status)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def photo_server() -> Iterator[tuple[str, type[PhotoServer]]]:
    class Handler(PhotoServer):
        requests: list[str] = []  # noqa: RUF012
        released = threading.Event()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", Handler
        Handler.released.set()
        server.shutdown()
        thread.join()


def test_web_photo_is_read_with_one_request(
    photo_server: tuple[str, type[PhotoServer]],
) -> None:
    address, handler = photo_server
    assert read_photo(f"{address}/a%20b.jpg?v=a::b", LIMITS) == PHOTO
    assert handler.requests == ["/a%20b.jpg?v=a::b"]
    exactly, less = replace(LIMITS, max_bytes=len(PHOTO)), replace(LIMITS, max_bytes=len(PHOTO) - 1)
    assert read_photo(f"{address}/a%20b.jpg", exactly) == PHOTO
    assert verdict_on_address(f"{address}/a%20b.jpg", less) is RejectReason.TOO_LARGE


@pytest.mark.parametrize(
    ("name", "reason", "requests"),
    [
        ("404", RejectReason.NOT_FOUND, 1),
        ("410", RejectReason.NOT_FOUND, 1),
        ("400", RejectReason.READ_FAILED, 1),
        ("401", RejectReason.READ_FAILED, 1),
        ("403", RejectReason.READ_FAILED, 1),
        ("408", RejectReason.READ_FAILED, 3),
        ("429", RejectReason.READ_FAILED, 3),
        ("500", RejectReason.READ_FAILED, 3),
        ("503", RejectReason.READ_FAILED, 3),
        ("drops", RejectReason.READ_FAILED, 3),
    ],
)
def test_web_server_that_refuses_a_photo(
    photo_server: tuple[str, type[PhotoServer]], name: str, reason: RejectReason, requests: int
) -> None:
    address, handler = photo_server
    assert verdict_on_address(f"{address}/{name}") is reason
    assert handler.requests == [f"/{name}"] * requests


@pytest.mark.parametrize(("name", "requests"), [("unavailable-twice", 3), ("half-at-first", 2)])
def test_web_photo_is_read_after_a_hiccup(
    photo_server: tuple[str, type[PhotoServer]], name: str, requests: int
) -> None:
    address, handler = photo_server
    assert read_photo(f"{address}/{name}.jpg", LIMITS) == PHOTO
    assert len(handler.requests) == requests


def test_web_photo_that_is_too_large_is_not_tried_again(
    photo_server: tuple[str, type[PhotoServer]],
) -> None:
    address, handler = photo_server
    verdict = verdict_on_address(f"{address}/a.jpg", replace(LIMITS, max_bytes=100))
    assert verdict is RejectReason.TOO_LARGE
    assert len(handler.requests) == 1


def test_threads_share_one_web_client(
    photo_server: tuple[str, type[PhotoServer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = fsspec.get_filesystem_class("http")
    driver.clear_instance_cache()
    made, get_session, start = [], driver.set_session, threading.Barrier(8)

    async def set_session(store: object) -> object:
        session = await get_session(store)
        made.append(session)
        return session

    monkeypatch.setattr(driver, "set_session", set_session)

    def read(number: int) -> bytes:
        start.wait(30)
        return read_photo(f"{photo_server[0]}/{number}.jpg", LIMITS)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(8))) == [PHOTO] * 8
    assert len(made) >= 8
    assert len({id(session) for session in made}) == 1


def test_empty_web_photo_is_read_as_such(photo_server: tuple[str, type[PhotoServer]]) -> None:
    assert read_photo(f"{photo_server[0]}/200", LIMITS) == b""


def test_endless_web_photo_is_too_large(photo_server: tuple[str, type[PhotoServer]]) -> None:
    address, handler = photo_server
    limits = replace(LIMITS, max_bytes=1 << 20)
    assert verdict_on_address(f"{address}/endless", limits) is RejectReason.TOO_LARGE
    assert handler.released.wait(10), "the connection was left open"


def test_web_server_that_hangs_is_read_failed(
    photo_server: tuple[str, type[PhotoServer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_reading, "_TRY_TIMEOUT_S", 0.2)
    address, handler = photo_server
    assert verdict_on_address(f"{address}/hangs") is RejectReason.READ_FAILED
    assert len(handler.requests) == 3


def test_all_tries_together_keep_to_the_time_of_the_photo(
    photo_server: tuple[str, type[PhotoServer]],
) -> None:
    address, handler = photo_server
    hurried = replace(LIMITS, max_seconds=0.2)
    assert verdict_on_address(f"{address}/hangs", hurried) is RejectReason.READ_FAILED
    assert len(handler.requests) == 1


def test_unreachable_web_server_is_read_failed() -> None:
    uri = "http://127.0.0.1:1/a.jpg"
    assert verdict_on_address(uri) is RejectReason.READ_FAILED
