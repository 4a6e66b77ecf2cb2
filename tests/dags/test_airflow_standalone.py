"""What `make airflow` says before it begins, if it cannot."""

import os
import socket
import subprocess
import sys

import pytest

from tests.dags.airflow_instance import ROOT


def start(port: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.airflow_standalone"],
        cwd=ROOT,
        env={**os.environ, "AIRFLOW_PORT": str(port)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("port", ["http", "-1", "80 80"])
def test_port_that_is_no_number(port: str) -> None:
    done = start(port)
    assert done.returncode == 1
    assert done.stderr == f"AIRFLOW_PORT is {port!r}: give the number of a free port\n"


def test_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = start(port)
    assert done.returncode == 1
    assert done.stderr == f"port {port} is in use: choose another with AIRFLOW_PORT=…\n"
