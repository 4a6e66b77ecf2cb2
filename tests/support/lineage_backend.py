"""A backend of OpenLineage on loopback: it keeps the events that it is sent, or misbehaves."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Event = dict[str, Any]


class Backend:
    """Its address, the events that it has taken, and how it answers the next ones.

    Attributes:
        url: What OPENLINEAGE_URL names.
        events: In the order in which they came.
        status: Answers with this.
        silent: Never answers, until the test is over.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.events: list[Event] = []
        self.status = 201
        self.silent = False
        self.over = threading.Event()

    def take(self, state: str) -> Event:
        """The event of that state; there must be one."""
        (event,) = (event for event in self.events if event["eventType"] == state)
        return event


@contextmanager
def lineage_backend() -> Iterator[Backend]:
    """Run one until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if backend.silent:
                backend.over.wait()
                return
            if backend.status < 300:
                assert self.path == "/api/v1/lineage"
                backend.events.append(json.loads(body))
            self.send_response(backend.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        backend = Backend(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        try:
            yield backend
        finally:
            backend.over.set()
            server.shutdown()
