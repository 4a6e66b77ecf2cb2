"""An Airflow of its own: scheduler, DAG processor and API server, a database, and its REST API."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import psutil
import pytest

from scripts.airflow_standalone import PARTS
from tests.support.paths import ROOT

BIN = ROOT / ".venv-airflow" / "bin"
TIMEOUT_S = 900
"""Upper bound of a wait: a few times what it takes on two slow cores that do other tests, too."""

T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None], timeout_s: float = TIMEOUT_S) -> T:
    """Wait until `look` gives something truthy, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.5)  # Each look costs the API server some CPU time.
    return found


class Airflow:
    """A running Airflow.

    Attributes:
        home: Its folder.
        url: Where its API server listens, on this machine alone.
    """

    def __init__(self, home: Path, database: str, environment: Mapping[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.home = home
        self.url = f"http://127.0.0.1:{port}"
        self._environment = {
            **environment,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "airflow_dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",  # No DAG changes.
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        }
        self._parts: dict[str, subprocess.Popen[bytes]] = {}

    @contextmanager
    def running(self, **of_dags: str) -> Iterator["Airflow"]:
        """Until the block ends; `of_dags` are variables that only the DAG processor sees."""
        try:
            self._start("migration", "db", "migrate").wait(TIMEOUT_S)
            self._start("api-server", "api-server", "--workers", "1")
            self._start("scheduler", "scheduler", *PARTS["scheduler"])
            wait_for("the API server", self._answers)
            self._start("dag-processor", "dag-processor", **of_dags)
            wait_for("the DAGs", lambda: len(self.get("dags")["dags"]) == 2)
            yield self
        finally:
            self._stop()

    def _start(self, name: str, *command: str, **variables: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.log").open("wb") as log:
            self._parts[name] = subprocess.Popen(
                [BIN / "airflow", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                env={**self._environment, **variables},
                start_new_session=True,
            )
        return self._parts[name]

    def addresses(self) -> set[str]:
        """The addresses that it listens on."""
        parts = [psutil.Process(part.pid) for part in self._parts.values() if part.poll() is None]
        family = [*parts, *(child for part in parts for child in part.children(recursive=True))]
        found = set()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                listening = [c for c in process.net_connections("inet") if c.status == "LISTEN"]
                found |= {connection.laddr.ip for connection in listening}
        return found

    def _answers(self) -> bool:
        for name, part in self._parts.items():
            assert part.poll() in (None, 0), f"{name} died:\n{self._tail(name)}"
        with suppress(OSError):
            return bool(self.get("monitor/health"))
        return False

    def _tail(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-4000:]

    def _stop(self) -> None:
        """End all of it, and what its tasks started, which has sessions of its own."""
        for part in self._parts.values():
            part.terminate()
        for part in self._parts.values():
            with suppress(subprocess.TimeoutExpired):
                part.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(part.pid, signal.SIGKILL)
            part.wait()
        for process in processes(str(self.home.parent)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    # ------------------------------------------------------------ the REST API

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The answer to a request."""
        request = Request(
            f"{self.url}/api/v2/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
        )
        try:
            with urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or "null")
        except HTTPError as error:
            error.add_note(error.read().decode(errors="replace"))
            raise

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def trigger(self, dag: str, **conf: object) -> str:
        """A manual run, as the button makes it; without a logical date. Gives its id."""
        run = self.call("POST", f"dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})
        return str(run["dag_run_id"])

    def runs(self, dag: str, kind: str) -> list[str]:
        """Ids of the runs of a kind: scheduled, manual, backfill, asset_triggered."""
        found = self.get(f"dags/{dag}/dagRuns?limit=100")["dag_runs"]
        return sorted(run["dag_run_id"] for run in found if run["run_type"] == kind)

    def task(self, dag: str, run: str, task: str) -> dict[str, Any]:
        """What the API says of a task of a run: `state`, `try_number` …"""
        found: dict[str, Any] = self.get(f"{_run(dag, run)}/taskInstances/{task}")
        return found

    def result(self, dag: str, run: str, task: str, key: str = "return_value") -> Any:
        """A task's XCom."""
        path = f"{_run(dag, run)}/taskInstances/{task}/xcomEntries/{key}?deserialize=true"
        return self.get(path)["value"]

    def events(self, asset: str) -> list[dict[str, Any]]:
        """The events of an asset, the latest first."""
        path = f"assets/events?asset_id={self.asset(asset)}&order_by=-timestamp&limit=100"
        found: list[dict[str, Any]] = self.get(path)["asset_events"]
        return found

    def asset(self, name: str) -> int:
        """Its number."""
        found = self.get("assets?limit=100")["assets"]
        return next(int(asset["id"]) for asset in found if asset["name"] == name)

    def log(self, dag: str, run: str, task: str, attempt: int) -> str:
        """What a try of a task has logged so far, or nothing if there was no such try."""
        path = f"{_run(dag, run)}/taskInstances/{task}/logs/{attempt}?full_content=true"
        try:
            content = self.get(path)["content"]
        except HTTPError:
            return ""
        lines = [line if isinstance(line, str) else _text(line) for line in content]
        return "\n".join(lines)

    def finish(self, dag: str, run: str, state: str = "success") -> dict[str, str]:
        """Wait until a run has ended; gives the states of its tasks."""

        def ended() -> str | None:
            found = self.get(_run(dag, run))["state"]
            return str(found) if found in ("success", "failed") else None

        try:
            found = wait_for(f"{dag} {run}", ended)
        except AssertionError:
            pytest.fail(f"{dag} {run} does not end\n{self._story(dag, run)}")
        if found != state:
            pytest.fail(f"{dag} {run}: {found}, not {state}\n{self._story(dag, run)}")
        tasks = self.get(f"{_run(dag, run)}/taskInstances")["task_instances"]
        return {task["task_id"]: task["state"] for task in tasks}

    def _story(self, dag: str, run: str) -> str:
        parts = [f"--- {name}\n{self._tail(name)}" for name in ("scheduler", "dag-processor")]
        for task in self.get(f"{_run(dag, run)}/taskInstances")["task_instances"]:
            name, attempt = task["task_id"], task["try_number"]
            log = self.log(dag, run, name, attempt)[-6000:]
            parts.append(f"--- {name}, try {attempt}: {task['state']}\n{log}")
        return "\n".join(parts)


def _run(dag: str, run: str) -> str:
    return f"dags/{dag}/dagRuns/{quote(run)}"


def _text(line: Mapping[str, Any]) -> str:
    details = line.get("error_detail") or []
    errors = [f"{error['exc_type']}: {error['exc_value']}" for error in details]
    return "\n".join([str(line.get("event", "")), *errors])


def processes(*words: str) -> dict[int, int]:
    """The processes with these words in their command, and the parent of each."""
    command = ["ps", "-axww", "-o", "pid=,ppid=,command="]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = (line.split(None, 2) for line in listing.splitlines() if all(w in line for w in words))
    return {int(pid): int(parent) for pid, parent, _ in found}
