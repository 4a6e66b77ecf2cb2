"""`make airflow`: what it says if it cannot begin, what listens, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from scripts import child_processes
from tests.support.airflow_instance import Airflow
from tests.support.paths import ROOT


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


@pytest.mark.airflow
def test_it_listens_on_the_loopback_interface_alone(airflow: Airflow) -> None:
    assert {ip.removeprefix("::ffff:") for ip in airflow.addresses()} == {"127.0.0.1"}


RUN = """
import pathlib, signal, sys
from scripts.child_processes import end_on_signals
from scripts.local_postgres import local_postgres
end_on_signals()
try:
    with local_postgres(pathlib.Path(sys.argv[1])):
        print("up", flush=True)
        signal.pause()
except KeyboardInterrupt:
    print("ended")
"""


def test_sigterm_ends_the_database_too(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    with subprocess.Popen(
        [sys.executable, "-c", RUN, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        lines = (folder / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        database = psutil.Process(int(lines[0]))
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[0] == "ended\n"
    assert not child_processes.is_alive(database)
    assert not (folder / "postmaster.pid").exists()


def test_what_does_not_end_is_killed_with_all_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_processes, "SECONDS_TO_END", 1)
    # A task runs in a session of its own.
    script = 'trap "" INT; setsid sleep 600 & echo $!; sleep 600'
    process = psutil.Popen(
        ["sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    task = psutil.Process(int(process.stdout.readline()))
    process.stdout.close()
    child_processes.end([process])
    assert not child_processes.is_alive(task)
    assert process.returncode == -signal.SIGKILL
