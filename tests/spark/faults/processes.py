"""The job in a process of its own, and the end of everything that it started."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.spark.standalone_cluster import TIMEOUT_S

ROOT = Path(__file__).parents[3]
_MARK = "SEER_TEST_FAULT"


def run_script(
    folder: Path, script: str, *arguments: object, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a Python script; when this returns, nothing that it started is left.

    Args:
        folder: Where it works.
        script: Its text.
        arguments: What it is given.
        env: Variables, beside those of this process.
    """
    # The session of these tests must not be taken for that of a spark-submit.
    kept = {name: value for name, value in os.environ.items() if name != "PYSPARK_GATEWAY_PORT"}
    ours = {"PYTHONPATH": str(ROOT), "MASTER": "local[2]", _MARK: str(folder)}
    try:
        return subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            env=kept | ours | (env or {}),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    finally:
        # Spark's Java process ends by itself once it sees that who started it is gone.
        left = [process for process in psutil.process_iter() if _is_ours(process, str(folder))]
        _, alive = psutil.wait_procs(left, timeout=TIMEOUT_S)
        for process in alive:
            process.kill()
        assert not alive


def command_of(process: psutil.Process) -> list[str]:
    """What a process was started with; nothing once it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _is_ours(process: psutil.Process, mark: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get(_MARK) == mark
    except psutil.Error:
        return False
