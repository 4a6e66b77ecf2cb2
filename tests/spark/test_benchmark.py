"""`make bench` fills its table, in its quick form."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.paths import ROOT

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def test_throughput_benchmark_fills_its_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.throughput", "--quick", "--output", str(tmp_path)]
    ended = subprocess.run(
        [*command, "--architecture", "regnety_002"],
        check=False,
        cwd=ROOT,
        # Each core costs a start of the model in every contender.
        env=os.environ | {"MASTER": "local[1]"},
        capture_output=True,
        text=True,
        timeout=900,
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
