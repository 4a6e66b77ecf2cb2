"""Everything that a GPU is needed for, in one command of a few minutes.

    python -m benchmarks.gpu_run --output FOLDER [--minutes 9]
    python -m benchmarks.gpu_run --output FOLDER --device cpu       # a dry run, without a GPU

Runs the tests of CUDA, then `benchmarks.gpu` for what is left of the time. FOLDER gets
`tests.txt`, `benchmark.txt` and `gpu.json`, which hold what there is if a step is ended. Says in
one line what became of each step; exit code 1 if one failed.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).parent.parent
TESTS = "tests/unit/backbones/test_cuda.py"
TESTS_S = 90.0
MARGIN_S = 20.0
"""What the benchmark may take beyond its time, for a step that is slower than was reckoned."""


def run_step(name: str, module: list[str], log: Path, seconds: float) -> bool:
    """Run a Python module, with its output in a file; ends it, and its children, when time is up.

    Returns:
        Whether it succeeded.
    """
    started = monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        try:
            code = process.wait(seconds)
            outcome = "ok" if code == 0 else f"FAILED with exit code {code}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code, outcome = 1, f"FAILED: ended after {seconds:.0f} s"
    print(f"{name}: {outcome}, {monotonic() - started:.0f} s, {log}", flush=True)
    return code == 0


def last_lines(log: Path, count: int) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def main() -> int:
    """Run all steps; returns the exit code."""
    started = monotonic()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_run",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda:0", "cpu"), default="cuda:0")
    parser.add_argument("--minutes", type=float, default=9.0, help="what all of it may take")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    folder = given.output.resolve()
    ends_at = started + 60 * given.minutes

    # Without conftest.py, which starts Spark; with warnings, which differ from torch to torch.
    options = ["--noconftest", "-p", "no:cacheprovider", "-W", "default", "-q"]
    tests, benchmark = folder / "tests.txt", folder / "benchmark.txt"
    tested = run_step("tests", ["pytest", *options, TESTS], tests, TESTS_S)
    print(last_lines(tests, 1 if tested else 40), flush=True)

    minutes = (ends_at - monotonic() - MARGIN_S) / 60
    module = ["benchmarks.gpu", "--device", given.device, "--minutes", f"{minutes:.2f}"]
    module += ["--output", str(folder / "gpu.json")]
    measured = run_step("benchmark", module, benchmark, ends_at - monotonic())
    print(last_lines(benchmark, 60), flush=True)
    return 0 if tested and measured else 1


if __name__ == "__main__":
    sys.exit(main())
