"""A web server of photos that misbehaves as a test demands."""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil

Behaviour = Callable[["PhotoHandler", bytes, int], None]
"""Answers a request, given the photo and the number of its request, from 1 on."""

ALLOWED = ("--photo-hosts", "127.0.0.1", "--private-photo-hosts")
"""Flags that let the job read from it."""


class PhotoHandler(BaseHTTPRequestHandler):
    """Answers with the photo's behaviour, or else with the photo."""

    photos: Mapping[str, bytes]
    behaviours: Mapping[str, Behaviour]
    asked: Counter[str]
    lock: threading.Lock

    def do_GET(self) -> None:
        name = self.path.strip("/")
        with self.lock:
            self.asked[name] += 1
            count = self.asked[name]
        self.behaviours.get(name, PhotoHandler.serve)(self, self.photos[name], count)

    def serve(self, photo: bytes, count: int = 1) -> None:
        self.answer(200, photo, len(photo))

    def answer(self, status: int, body: bytes, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def client(self) -> psutil.Process | None:
        """Find the process that sent the request, unless it is gone."""
        for found in psutil.net_connections("tcp"):
            if found.laddr == self.client_address and found.pid is not None:
                return psutil.Process(found.pid)
        return None

    def log_message(self, *args: object) -> None:
        """Stay quiet."""


Victims = Callable[[psutil.Process], list[psutil.Process]]
"""Finds processes to kill, given the one that asks for a photo."""


def killing(due: list[Victims], then: Behaviour = PhotoHandler.serve) -> Behaviour:
    """Kill what is due next, and never answer; once nothing is due, do what comes `then`."""

    def behave(handler: PhotoHandler, photo: bytes, count: int) -> None:
        if not due:
            then(handler, photo, count)
        elif (client := handler.client()) is not None and (victims := due[0](client)):
            del due[0]
            for process in victims:
                process.kill()

    return behave


@contextmanager
def photo_server(
    photos: Mapping[str, bytes], behaviours: Mapping[str, Behaviour]
) -> Iterator[tuple[str, Counter[str]]]:
    """Serve photos by name until the block ends; yields the address and the requests by name."""

    class Handler(PhotoHandler):
        asked: Counter[str] = Counter()  # noqa: RUF012
        lock = threading.Lock()

    Handler.photos, Handler.behaviours = photos, behaviours
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        failures: list[BaseException | None] = []
        server.handle_error = lambda *_: failures.append(sys.exception())  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", Handler.asked
        finally:
            server.shutdown()
            thread.join()
        # A client may have been killed, or may have timed out.
        assert not [failure for failure in failures if not isinstance(failure, OSError)]
