"""Photos are read from web servers, whatever they answer; SSRF is blocked on every hop."""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote

import fsspec
import pytest

from schemas.rejects import RejectReason
from seer_model.photos import fetch
from seer_model.photos.fetch import read_photo
from seer_model.photos.limits import PhotoAccess, PhotoLimits, PhotoRejected
from seer_model.photos.web_address import follow_redirect, web_url
from tests.support.encoded_photos import LIMITS, SAMPLES, reject_reason_of

PHOTO = SAMPLES["JPEG"] * 100


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_RETRY_WAITS_S", (0, 0))


class WebServer(BaseHTTPRequestHandler):
    """Answers as its path says.

    `/to/WHERE` redirects, `/endless` sends until the client hangs up, `/hangs` never answers,
    `/drops` sends a header alone, `/STATUS` has that status, and `/….jpg` is a photo.
    """

    requests: list[str]
    hosts: list[str]
    credentials: list[str | None]
    released: threading.Event
    port: int
    retry_after: str | None = None

    def do_GET(self) -> None:
        self.requests.append(self.path)
        self.hosts.append(self.headers["Host"].partition(":")[0])
        name = self.path.strip("/").partition("?")[0]
        self.credentials.append(self.headers["Authorization"])
        if self.path.startswith("/to/"):
            location = unquote(self.path.removeprefix("/to/"))
            # As real servers do, send it in UTF-8; `send_header` would encode it as Latin-1.
            self.send_response(302)
            self.send_header("Location", location.encode().decode("latin-1"))
            self.end_headers()
            return
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
            self._send_photo(name)

    def _send_photo(self, name: str) -> None:
        whole = PHOTO if name.endswith(".jpg") else b""
        status, body = int(name) if name.isdigit() else 200, whole
        if name == "unavailable-twice.jpg" and len(self.requests) < 3:
            status = 503
        if name == "half-at-first.jpg" and len(self.requests) < 2:
            body = whole[: len(whole) // 2]
        self.send_response(status)
        if self.retry_after is not None:
            self.send_header("Retry-After", self.retry_after)
        self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[type[WebServer]]:
    class Handler(WebServer):
        requests: list[str] = []  # noqa: RUF012
        hosts: list[str] = []  # noqa: RUF012
        credentials: list[str | None] = []  # noqa: RUF012
        released = threading.Event()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Handler.port = running.server_port
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield Handler
        Handler.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def address(server: type[WebServer]) -> str:
    return f"http://127.0.0.1:{server.port}"


# Answers


def test_web_photo_is_read_with_one_request(server: type[WebServer], address: str) -> None:
    assert read_photo(f"{address}/a%20b.jpg?v=a::b", LIMITS) == PHOTO
    assert server.requests == ["/a%20b.jpg?v=a::b"]
    assert read_photo(f"{address}/a%20b.jpg", replace(LIMITS, max_bytes=len(PHOTO))) == PHOTO


@pytest.mark.parametrize("limit", [100, len(PHOTO) - 1])
def test_web_photo_that_is_too_large_is_not_retried(
    server: type[WebServer], address: str, limit: int
) -> None:
    limits = replace(LIMITS, max_bytes=limit)
    assert reject_reason_of(f"{address}/a.jpg", limits) is RejectReason.TOO_LARGE
    assert len(server.requests) == 1


def test_endless_web_photo_is_too_large(server: type[WebServer], address: str) -> None:
    limits = replace(LIMITS, max_bytes=1 << 20)
    assert reject_reason_of(f"{address}/endless", limits) is RejectReason.TOO_LARGE
    assert server.released.wait(10), "the connection was left open"


def test_empty_web_photo_is_read(address: str) -> None:
    assert read_photo(f"{address}/200", LIMITS) == b""


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
def test_transient_status_is_retried_and_a_permanent_one_is_not(
    server: type[WebServer], address: str, name: str, reason: RejectReason, requests: int
) -> None:
    assert reject_reason_of(f"{address}/{name}") is reason
    assert server.requests == [f"/{name}"] * requests


def http_date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        (lambda: "7", 7),
        (lambda: http_date(90), 60),  # At least, when the server is asked at last.
        (lambda: http_date(90).replace("GMT", "-0000"), 60),
        (lambda: "0", 0),
        (lambda: http_date(-60), 0),
        (lambda: "soon", 0),
        (lambda: "-5", 0),
        (lambda: "", 0),
        # There is no time for that.
        (lambda: "3600", 0),
        (lambda: "9" * 400, 0),
        (lambda: http_date(3600), 0),
    ],
)
def test_busy_server_is_asked_again_when_it_says(
    server: type[WebServer],
    address: str,
    status: int,
    asked: Callable[[], str],
    waited: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(fetch, "sleep", waits.append)
    server.retry_after = asked()
    assert reject_reason_of(f"{address}/{status}") is RejectReason.READ_FAILED
    assert len(server.requests) == 3
    assert len(waits) == 2
    for wait in waits:
        assert waited <= wait <= (waited and max(waited, 90))


def test_only_a_busy_server_is_waited_for(
    server: type[WebServer], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(fetch, "sleep", waits.append)
    server.retry_after = "7"
    assert reject_reason_of(f"{address}/500") is RejectReason.READ_FAILED
    assert waits == [0, 0]


@pytest.mark.parametrize(("name", "requests"), [("unavailable-twice", 3), ("half-at-first", 2)])
def test_web_photo_is_read_after_a_hiccup(
    server: type[WebServer], address: str, name: str, requests: int
) -> None:
    assert read_photo(f"{address}/{name}.jpg", LIMITS) == PHOTO
    assert len(server.requests) == requests


def test_web_server_that_hangs_is_read_failed(
    server: type[WebServer], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_ATTEMPT_TIMEOUT_S", 0.2)
    assert reject_reason_of(f"{address}/hangs") is RejectReason.READ_FAILED
    assert len(server.requests) == 3


def test_all_attempts_together_keep_to_the_deadline(server: type[WebServer], address: str) -> None:
    limits = replace(LIMITS, max_seconds=0.2)
    assert reject_reason_of(f"{address}/hangs", limits) is RejectReason.READ_FAILED
    assert len(server.requests) == 1


def test_unreachable_web_server_is_read_failed() -> None:
    assert reject_reason_of("http://127.0.0.1:1/a.jpg") is RejectReason.READ_FAILED


def test_threads_share_one_web_client(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = fsspec.get_filesystem_class("http")
    driver.clear_instance_cache()
    used, get_session, start = [], driver.set_session, threading.Barrier(8)

    async def set_session(store: object) -> object:
        session = await get_session(store)
        used.append(session)
        return session

    monkeypatch.setattr(driver, "set_session", set_session)

    def read(number: int) -> bytes:
        start.wait(30)
        return read_photo(f"{address}/{number}.jpg", LIMITS)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(8))) == [PHOTO] * 8
    assert len(used) >= 8
    assert len({id(session) for session in used}) == 1


# Addresses: asked as given

SIGNED = [
    "/a.jpg?response-content-type=image%2Fjpeg&Signature=q%2Bw%3D",
    "/a%3Ab%2Cc%27d%7Ee.jpg?f=%3A%2C%27%7E",
    "/%c3%a9.jpg?x=%2f",
    "/%41.jpg",
    '/a|b<c>"^`{}.jpg?d|e',
    "/a/../b/./c.jpg",
    "/%2e%2e/a.jpg",
    "/a.jpg?",
    "/a.jpg?x=1&&y=a+b&=?",
    "/a;b//c@d:e!$&'()*,=.jpg",
]
UNENCODED = {
    "/a b\tc.jpg?d e": "/a%20b%09c.jpg?d%20e",
    "/Žluť 📷.jpg?é": "/%C5%BDlu%C5%A5%20%F0%9F%93%B7.jpg?%C3%A9",
    "/100%.jpg?5%2": "/100%25.jpg?5%252",
    "/a\r\nX-Header: b.jpg": "/a%0D%0AX-Header:%20b.jpg",
    "/a.jpg?x#top": "/a.jpg?x",
}


def ask(address: str) -> None:
    """Read what may not be there."""
    with suppress(PhotoRejected):
        read_photo(address, LIMITS)


@pytest.mark.parametrize("target", SIGNED)
def test_address_is_asked_as_given(server: type[WebServer], address: str, target: str) -> None:
    ask(address + target)
    assert server.requests == [target]


@pytest.mark.parametrize("target", SIGNED)
@pytest.mark.parametrize("place", ["http://127.0.0.1:{port}", "//127.0.0.1:{port}", ""])
def test_redirect_is_followed_as_sent(
    server: type[WebServer], address: str, place: str, target: str
) -> None:
    location = place.format(port=server.port) + target
    ask(f"{address}/to/{quote(location, safe='')}")
    assert server.requests[1:] == [target]


@pytest.mark.parametrize(("given", "asked"), UNENCODED.items())
def test_what_no_request_can_hold_is_encoded(
    server: type[WebServer], address: str, given: str, asked: str
) -> None:
    ask(address + given)
    assert server.requests == [asked]
    if "\r" not in given:
        ask(f"{address}/to/{quote(given, safe='')}")
        assert server.requests[2:] == [asked]


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        ("b%2Fc.jpg", "/to/b%2Fc.jpg"),
        ("../b.jpg?c=%2F/../d?", "/b.jpg?c=%2F/../d?"),
        ("?v=%3A", "/to/..%2F?v=%3A"),
    ],
)
def test_relative_redirect_is_followed(location: str, asked: str) -> None:
    url = web_url("http://shop.example:81/to/..%2F?x=/y/")
    assert follow_redirect(url, location) == "http://shop.example:81" + asked


def test_credentials_stay_with_their_server(server: type[WebServer]) -> None:
    own = f"http://user:secret@127.0.0.1:{server.port}"
    assert read_photo(f"{own}/to//photo.jpg", LIMITS) == PHOTO
    assert read_photo(f"{own}/to/http://localhost:{server.port}/photo.jpg", LIMITS) == PHOTO
    basic = "Basic dXNlcjpzZWNyZXQ="
    assert server.credentials == [basic, basic, basic, None]


# SSRF


def limits(*hosts: str) -> PhotoLimits:
    return PhotoLimits(access=PhotoAccess(hosts=hosts))


def test_host_name_that_resolves_to_a_private_address(server: type[WebServer]) -> None:
    address = f"http://localhost:{server.port}/photo.jpg"
    assert reject_reason_of(address, limits("*")) is RejectReason.NOT_ALLOWED
    assert reject_reason_of(address, limits("*host")) is RejectReason.NOT_ALLOWED
    assert server.requests == []
    assert read_photo(address, limits("localhost")) == PHOTO
    assert read_photo(address, PhotoLimits(access=PhotoAccess(private_hosts=True))) == PHOTO


@pytest.mark.parametrize(
    "host", ["0x7f.1", "0x7f000001", "2130706433", "127.1", "0177.0.0.1", "127。0。0。1"]
)
def test_loopback_address_in_another_notation(server: type[WebServer], host: str) -> None:
    found = reject_reason_of(f"http://{host}:{server.port}/photo.jpg", limits("*"))
    # Not every resolver understands hexadecimal notation.
    assert found in (RejectReason.NOT_ALLOWED, RejectReason.READ_FAILED)
    assert server.requests == []


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/photo.jpg",
        "//127.0.0.1:{port}/photo.jpg",
        "http://[::1]:{port}/photo.jpg",
        "http://169.254.169.254/latest/meta-data",
        "https://other.example/photo.jpg",
        "file:///etc/hostname",
        "ftp://localhost/photo.jpg",
    ],
)
def test_redirect_to_a_forbidden_address(server: type[WebServer], target: str) -> None:
    address = f"http://localhost:{server.port}/to/{target.format(port=server.port)}"
    assert reject_reason_of(address, limits("localhost")) is RejectReason.NOT_ALLOWED
    assert len(server.requests) == 1


def test_redirect_to_an_allowed_address(server: type[WebServer]) -> None:
    both = limits("localhost", "127.0.0.1")
    redirect = f"http://localhost:{server.port}/to/"
    assert read_photo(f"{redirect}/photo.jpg", both) == PHOTO
    assert read_photo(f"{redirect}http://127.0.0.1:{server.port}/photo.jpg", both) == PHOTO
    assert (server.hosts[-1], server.requests[-1]) == ("127.0.0.1", "/photo.jpg")


def test_redirect_loop_is_read_failed(server: type[WebServer]) -> None:
    loop = f"http://localhost:{server.port}/to/" + "/to/" * 40
    assert reject_reason_of(loop, limits("localhost")) is RejectReason.READ_FAILED
    assert len(server.requests) < 100
