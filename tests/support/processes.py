"""A job in a process of its own, and the end of everything that it started."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.support.paths import ROOT
from tests.support.spark_python import submit_args
from tests.support.standalone_cluster import TIMEOUT_S

_MARK = "SEER_TEST_FAULT"

_FORKS = multiprocessing.get_context("forkserver")
# The imports of a job take several times the CPU seconds of what these tests do with it.
_FORKS.set_forkserver_preload(["jobs.categorize_listings", "jobs.maintain_embeddings"])


def fork_script(
    folder: Path, script: str, *arguments: object, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a Python script in a fork of a process that has imported the jobs already.

    When this returns, nothing that the script started is left.

    Args:
        folder: Its working directory.
        script: Its text.
        arguments: Its arguments.
        env: Variables, beside those of this process.
    """
    variables = _without_session(os.environ) | _variables(folder) | (env or {})
    output = folder / "stdout", folder / "stderr"
    process = _FORKS.Process(
        target=_run_fork,
        args=(folder, script, [str(each) for each in arguments], variables, output),
    )
    try:
        process.start()
        process.join(TIMEOUT_S)
        code = process.exitcode
        assert code is not None, output[1].read_text(encoding="utf-8")
    finally:
        process.kill()
        process.join()
        _wait_for_the_rest(folder)
    stdout, stderr = (file.read_text(encoding="utf-8") for file in output)
    return subprocess.CompletedProcess([script], code, stdout, stderr)


def _run_fork(
    folder: Path,
    script: str,
    arguments: Sequence[str],
    variables: Mapping[str, str],
    output: tuple[Path, Path],
) -> None:
    for number, file in enumerate(output, start=1):
        with file.open("wb") as opened:
            os.dup2(opened.fileno(), number)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.argv = ["-c", *arguments]
    exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})


def _without_session(variables: Mapping[str, str]) -> dict[str, str]:
    """Hide the session of these tests, which would be taken for that of a spark-submit."""
    return {name: value for name, value in variables.items() if name != "PYSPARK_GATEWAY_PORT"}


def _variables(folder: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT),
        "MASTER": "local[1]",
        "PYSPARK_SUBMIT_ARGS": submit_args(),
        _MARK: str(folder),
    }


def _wait_for_the_rest(folder: Path) -> None:
    """Wait until Spark's Java process has seen that its parent is gone, and has ended."""
    left = [process for process in psutil.process_iter() if _is_ours(process, str(folder))]
    _, alive = psutil.wait_procs(left, timeout=TIMEOUT_S)
    for process in alive:
        process.kill()
    assert not alive


def command_of(process: psutil.Process) -> list[str]:
    """The command that started a process; empty once the process has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _is_ours(process: psutil.Process, mark: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get(_MARK) == mark
    except psutil.Error:
        return False
