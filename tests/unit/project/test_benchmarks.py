"""The benchmarks' verdicts, and what the one for GPUs says without a GPU."""

import os
import subprocess
import sys

import pytest

from benchmarks.measuring import Row
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("ratios", "goal", "at_most", "verdict"),
    [
        ([0.95, 0.85, 0.9], 0.9, False, "met"),
        ([0.81], 0.9, False, "missed by 10.0%"),
        ([0.01, 0.02], 0.02, True, "met"),
        ([0.03], 0.02, True, "missed by 50.0%"),
        ([0.5], None, False, ""),
    ],
)
def test_a_row_says_by_how_much_it_misses_its_goal(
    ratios: list[float], goal: float | None, at_most: bool, verdict: str
) -> None:
    assert Row("job", ratios=ratios, goal=goal, at_most=at_most).verdict == verdict


def test_gpu_benchmark_needs_no_spark_and_says_that_there_is_no_cuda() -> None:
    script = (
        "import sys; from benchmarks import gpu; sys.argv[1:] = []; "
        "assert not {'pyspark', 'mlflow', 'openvino'} & set(sys.modules); sys.exit(gpu.main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "python -m benchmarks.gpu: error: torch finds no CUDA device"
    ]
