"""A registered model behind `mlflow models serve`, and a client for it."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pyarrow as pa

TIMEOUT_S = 300
"""For a server to start, and for an answer."""

Row = Mapping[str, Any]


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    content: dict[str, Any]

    @property
    def predictions(self) -> list[dict[str, Any]]:
        assert self.status == 200, self.content
        found: list[dict[str, Any]] = self.content["predictions"]
        return found


class Server(NamedTuple):
    """A running server."""

    port: int

    def post(self, content: object) -> Answer:
        """Send JSON to be scored; the answer must be strict JSON (no NaN)."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/invocations", json.dumps(content), headers)
        response = connection.getresponse()
        answer = json.loads(response.read(), parse_constant=_no_json)
        connection.close()
        return Answer(response.status, answer)

    def score(self, rows: Iterable[Row]) -> list[dict[str, Any]]:
        """Send photos; returns one row per listing."""
        return self.post({"dataframe_records": as_json(rows)}).predictions

    def is_up(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


def _no_json(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


def as_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Encode the bytes of rows in base64."""
    return [
        {
            name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for name, value in row.items()
        }
        for row in rows
    ]


def as_served(scores: pa.RecordBatch | pa.Table) -> list[dict[str, Any]]:
    """Convert scores to what a served model answers; every float32 keeps its exact value."""
    rows: list[dict[str, Any]] = scores.to_pylist()
    for row in rows:
        rejects = row["image_rejects"]
        row["image_rejects"] = rejects and {str(index): reason for index, reason in rejects}
    return rows


@contextmanager
def served(
    model_uri: str, tracking_uri: str, folder: Path, settings: Mapping[str, object] | None = None
) -> Iterator[Server]:
    """Serve a model until the block ends.

    Args:
        model_uri: `models:/…`.
        tracking_uri: The registry.
        folder: The server's working directory, with its log.
        settings: Model settings that differ from the defaults.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = Server(free.getsockname()[1])
    programs = Path(sys.executable).parent
    environment = {name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ} | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": "",
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_PYFUNC_INFERENCE_CONFIG": json.dumps(settings or {}),
    }
    command = [programs / "mlflow", "models", "serve", "--model-uri", model_uri]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(server.port)]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not server.is_up():
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
