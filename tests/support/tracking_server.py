"""An MLflow tracking server in its own processes, which can be killed and restarted."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.support.tracking_database import new_database

TIMEOUT_S = 300
PASSWORD = "Tr0ub4dor"


class Server:
    """`mlflow server` with its artifact proxy on a free port; its URI contains a password."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = new_database(folder, "server.db")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.uri = f"http://user:{PASSWORD}@{self.address}"
        self.artifacts = folder / "artifacts"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._process is not None:
            return
        host, port = self.address.split(":")
        command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", port]
        command += ["--backend-store-uri", self.database]
        command += ["--artifacts-destination", str(self.artifacts), "--workers", "1"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # Without the workers for MLflow's own jobs: seven processes that nothing here uses.
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )
        deadline = time.monotonic() + TIMEOUT_S
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/health", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """Kill all its processes with SIGKILL."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
