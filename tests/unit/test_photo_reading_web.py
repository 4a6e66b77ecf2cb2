"""Photos are read from a web server, whatever it answers, or does not."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import fsspec
import pytest

from schemas.rejects import RejectReason
from seer_model import photo_reading
from seer_model.photo_reading import read_photo
from seer_model.photos import PhotoLimits
from tests.unit.encoded_photos import LIMITS, SAMPLES, verdict_on_address

HAS_AIOHTTP = find_spec("aiohttp") is not None
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


needs_aiohttp = pytest.mark.skipif(not HAS_AIOHTTP, reason="aiohttp is not installed")


@needs_aiohttp
def test_web_photo_is_read_with_one_request(
    photo_server: tuple[str, type[PhotoServer]],
) -> None:
    address, handler = photo_server
    assert read_photo(f"{address}/a%20b.jpg?v=a::b", LIMITS) == PHOTO
    assert handler.requests == ["/a%20b.jpg?v=a::b"]
    exactly, less = PhotoLimits(max_bytes=len(PHOTO)), PhotoLimits(max_bytes=len(PHOTO) - 1)
    assert read_photo(f"{address}/a%20b.jpg", exactly) == PHOTO
    assert verdict_on_address(f"{address}/a%20b.jpg", less) is RejectReason.TOO_LARGE


@needs_aiohttp
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


@needs_aiohttp
@pytest.mark.parametrize(("name", "requests"), [("unavailable-twice", 3), ("half-at-first", 2)])
def test_web_photo_is_read_after_a_hiccup(
    photo_server: tuple[str, type[PhotoServer]], name: str, requests: int
) -> None:
    address, handler = photo_server
    assert read_photo(f"{address}/{name}.jpg", LIMITS) == PHOTO
    assert len(handler.requests) == requests


@needs_aiohttp
def test_web_photo_that_is_too_large_is_not_tried_again(
    photo_server: tuple[str, type[PhotoServer]],
) -> None:
    address, handler = photo_server
    verdict = verdict_on_address(f"{address}/a.jpg", PhotoLimits(max_bytes=100))
    assert verdict is RejectReason.TOO_LARGE
    assert len(handler.requests) == 1


@needs_aiohttp
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


@needs_aiohttp
def test_empty_web_photo_is_read_as_such(photo_server: tuple[str, type[PhotoServer]]) -> None:
    assert read_photo(f"{photo_server[0]}/200", LIMITS) == b""


@needs_aiohttp
def test_endless_web_photo_is_too_large(photo_server: tuple[str, type[PhotoServer]]) -> None:
    address, handler = photo_server
    limits = PhotoLimits(max_bytes=1 << 20)
    assert verdict_on_address(f"{address}/endless", limits) is RejectReason.TOO_LARGE
    assert handler.released.wait(10), "the connection was left open"


@needs_aiohttp
def test_web_server_that_hangs_is_read_failed(
    photo_server: tuple[str, type[PhotoServer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_reading, "_TRY_TIMEOUT_S", 0.2)
    address, handler = photo_server
    assert verdict_on_address(f"{address}/hangs") is RejectReason.READ_FAILED
    assert len(handler.requests) == 3


@needs_aiohttp
def test_all_tries_together_keep_to_the_time_of_the_photo(
    photo_server: tuple[str, type[PhotoServer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_reading, "_PHOTO_TIMEOUT_S", 0.2)
    address, handler = photo_server
    assert verdict_on_address(f"{address}/hangs") is RejectReason.READ_FAILED
    assert len(handler.requests) == 1


@needs_aiohttp
def test_unreachable_web_server_is_read_failed() -> None:
    uri = "http://127.0.0.1:1/a.jpg"
    assert verdict_on_address(uri) is RejectReason.READ_FAILED


@pytest.mark.skipif(HAS_AIOHTTP, reason="aiohttp is installed")
def test_web_photo_without_aiohttp_is_unsupported() -> None:
    uri = "https://127.0.0.1/a.jpg"
    assert verdict_on_address(uri) is RejectReason.UNSUPPORTED_SCHEME
