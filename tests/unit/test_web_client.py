"""No request leaves for a web server that is not allowed, whatever leads there."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

from schemas.rejects import RejectReason
from seer_model.photo_access import PhotoAccess
from seer_model.photo_reading import read_photo
from seer_model.photos import PhotoLimits
from tests.unit.encoded_photos import SAMPLES, verdict_on_address

PHOTO = SAMPLES["JPEG"]


class Redirector(BaseHTTPRequestHandler):
    """`/photo.jpg` is a photo; `/to/WHERE` sends on to there."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.headers['Host'].partition(':')[0]}{self.path}")
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", unquote(self.path.removeprefix("/to/")))
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(PHOTO)))
        self.end_headers()
        self.wfile.write(PHOTO)

    def log_message(self, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def server() -> Iterator[tuple[int, list[str]]]:
    class Handler(Redirector):
        asked: list[str] = []  # noqa: RUF012

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_port, Handler.asked
        server.shutdown()
        thread.join()


def limits(*hosts: str) -> PhotoLimits:
    return PhotoLimits(access=PhotoAccess(hosts=hosts))


def test_a_name_that_stands_for_this_machine(server: tuple[int, list[str]]) -> None:
    port, asked = server
    address = f"http://localhost:{port}/photo.jpg"
    assert verdict_on_address(address, limits("*")) is RejectReason.NOT_ALLOWED
    assert verdict_on_address(address, limits("*host")) is RejectReason.NOT_ALLOWED
    assert asked == []
    assert read_photo(address, limits("localhost")) == PHOTO
    everyone = PhotoLimits(access=PhotoAccess(private_hosts=True))
    assert read_photo(address, everyone) == PHOTO


@pytest.mark.parametrize("host", ["0x7f.1", "0x7f000001", "2130706433", "127.1", "0177.0.0.1"])
def test_other_spellings_of_this_machine(server: tuple[int, list[str]], host: str) -> None:
    port, asked = server
    address = f"http://{host}:{port}/photo.jpg"
    found = verdict_on_address(address, limits("*"))
    # Not every system's resolver knows hexadecimal numbers.
    assert found in (RejectReason.NOT_ALLOWED, RejectReason.READ_FAILED)
    assert asked == []


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
def test_a_redirect_to_somewhere_else(server: tuple[int, list[str]], target: str) -> None:
    port, asked = server
    address = f"http://localhost:{port}/to/{target.format(port=port)}"
    assert verdict_on_address(address, limits("localhost")) is RejectReason.NOT_ALLOWED
    assert len(asked) == 1


def test_a_redirect_to_what_is_allowed(server: tuple[int, list[str]]) -> None:
    port, asked = server
    both = limits("localhost", "127.0.0.1")
    assert read_photo(f"http://localhost:{port}/to//photo.jpg", both) == PHOTO
    address = f"http://localhost:{port}/to/http://127.0.0.1:{port}/photo.jpg"
    assert read_photo(address, both) == PHOTO
    assert asked[-1] == "127.0.0.1/photo.jpg"


def test_redirects_in_a_circle_end(server: tuple[int, list[str]]) -> None:
    port, asked = server
    circle = f"http://localhost:{port}/to/" + "/to/" * 40
    assert verdict_on_address(circle, limits("localhost")) is RejectReason.READ_FAILED
    assert len(asked) < 100
