"""A Label Studio on this machine, set up as `make review` sets it up."""

import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from scripts import review_standalone
from scripts.child_processes import end


class Server(NamedTuple):
    """A running server, and the log-in of its one user."""

    url: str
    user: str
    password: str
    token: str


@contextmanager
def label_studio(folder: Path, **variables: str) -> Iterator[Server]:
    """Run a server with its data in a folder, and more environment variables of its own."""
    if not review_standalone.LABEL_STUDIO.exists():
        pytest.fail("no Label Studio: run `make .venv-review/.stamp`, as `make test` does")
    login = {"user": "ada@shop.example", "password": secrets.token_urlsafe(9)}
    login["token"] = secrets.token_hex(20)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("wb") as log:
        process = psutil.Popen(
            [*review_standalone.START, str(port)],
            env={**os.environ, **review_standalone.settings(login, folder), **variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        review_standalone.await_start(process, port)
        yield Server(f"http://127.0.0.1:{port}", **login)
    finally:
        end([process])
