import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.measuring import Row

ROOT = Path(__file__).parents[2]


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


@pytest.mark.slow
@pytest.mark.spark
def test_throughput_benchmark_fills_its_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.throughput", "--quick", "--output", str(tmp_path)]
    ended = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert ended.returncode == 0, ended.stderr
    record = json.loads((tmp_path / "throughput.json").read_text(encoding="utf-8"))
    assert record["markdown"] in ended.stdout
    assert len(record["rows"]) >= 20
    for row in record["rows"]:
        figures = [row["photos_per_second"], row["ratio"]]
        assert any(figures), row
        assert all(figure > 0 for figure in figures if figure is not None), row
    with Image.open(tmp_path / "throughput.png") as plot:
        assert plot.format == "PNG"
