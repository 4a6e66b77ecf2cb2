"""Photos are read from a web server, whatever it answers, or does not."""

import itertools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import pytest

import seer_model.photos
from schemas.rejects import RejectReason
from seer_model.photos import PhotoLimits, read_photo
from tests.unit.encoded_photos import LIMITS, SAMPLES, verdict_on_address

HAS_AIOHTTP = find_spec("aiohttp") is not None


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
            status = int(name) if name.isdigit() else 200
            body = SAMPLES["JPEG"] * 100 if name == "a%20b.jpg" else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
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
    photo = SAMPLES["JPEG"] * 100
    assert read_photo(f"{address}/a%20b.jpg?v=a::b", LIMITS) == photo
    assert handler.requests == ["/a%20b.jpg?v=a::b"]
    exactly, less = PhotoLimits(max_bytes=len(photo)), PhotoLimits(max_bytes=len(photo) - 1)
    assert read_photo(f"{address}/a%20b.jpg", exactly) == photo
    assert verdict_on_address(f"{address}/a%20b.jpg", less) is RejectReason.TOO_LARGE


@needs_aiohttp
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("404", RejectReason.NOT_FOUND),
        ("403", RejectReason.READ_FAILED),
        ("500", RejectReason.READ_FAILED),
        ("503", RejectReason.READ_FAILED),
        ("drops", RejectReason.READ_FAILED),
    ],
)
def test_web_server_that_refuses_a_photo(
    photo_server: tuple[str, type[PhotoServer]], name: str, reason: RejectReason
) -> None:
    address, _ = photo_server
    assert verdict_on_address(f"{address}/{name}") is reason


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
    monkeypatch.setattr(seer_model.photos, "_HTTP_TIMEOUT_S", 0.2)
    uri = f"{photo_server[0]}/hangs"
    assert verdict_on_address(uri) is RejectReason.READ_FAILED


@needs_aiohttp
def test_unreachable_web_server_is_read_failed() -> None:
    uri = "http://127.0.0.1:1/a.jpg"
    assert verdict_on_address(uri) is RejectReason.READ_FAILED


@pytest.mark.skipif(HAS_AIOHTTP, reason="aiohttp is installed")
def test_web_photo_without_aiohttp_is_unsupported() -> None:
    uri = "https://127.0.0.1/a.jpg"
    assert verdict_on_address(uri) is RejectReason.UNSUPPORTED_SCHEME
