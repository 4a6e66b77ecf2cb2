"""A proxy before an HTTP server, which answers in its place, is slow, or loses answers."""

import http.server
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OK, LOSE, DROP = "ok", "lose the answer", "no answer"
"""What becomes of a request: passed on; passed on, but the connection closed before the answer;
neither passed on nor answered. A number is a status to answer with."""

Fate = str | int


class FaultyProxy:
    """Passes requests on, as far as `fate` says so.

    Attributes:
        fate: What becomes of a request, by its method and path.
        delay: Seconds before each request is passed on.
        seen: What became of the requests, in order.
    """

    def __init__(self, address: str) -> None:
        self.fate: Callable[[str, str], Fate] = lambda method, path: OK
        self.delay = 0.0
        self.seen: list[tuple[str, str, Fate]] = []
        self._target = address
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator["FaultyProxy"]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def reset(self) -> None:
        self.fate, self.delay, self.seen = lambda method, path: OK, 0.0, []

    def pass_on(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        time.sleep(self.delay)
        request = urllib.request.Request(
            self._target + path, data=body or None, method=method, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()


def _handler(proxy: FaultyProxy) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fate = proxy.fate(self.command, self.path)
            proxy.seen.append((self.command, self.path, fate))
            if fate == DROP:
                self.close_connection = True
                return
            if isinstance(fate, int):
                self._send(fate, {}, b"")
                return
            dropped = ("connection", "transfer-encoding")
            headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
            answer = proxy.pass_on(self.command, self.path, headers, body)
            if fate == LOSE:
                self.close_connection = True
                return
            self._send(*answer)

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else len(body)
            skipped = ("connection", "transfer-encoding", "content-length", "date", "server")
            for name, value in headers.items():
                if name.lower() not in skipped:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    return Handler
