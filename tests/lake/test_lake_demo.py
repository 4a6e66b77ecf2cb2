"""`make lake`: from table to table on an S3 server, rolled back, read by another engine."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.standalone_cluster import clean_environment

pytestmark = [pytest.mark.spark, pytest.mark.lake, pytest.mark.slow]


def test_a_day_is_published_twice_and_rolled_back(tmp_path: Path) -> None:
    output = tmp_path / "lake"
    done = subprocess.run(
        [sys.executable, "-m", "demo.lake", "--samples", "72", "--output", str(output)],
        cwd=ROOT,
        env=clean_environment() | {"MASTER": "local[1]"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reports = [json.loads((output / f"{name}.json").read_text()) for name in ("first", "second")]
    first, second = (report["published"].rpartition(" ")[2] for report in reports)
    seen = re.findall(r"(after the second run|rolled back): snapshot (\d+): (.*)\n", done.stdout)
    assert [(name, snapshot) for name, snapshot, _ in seen] == [
        ("after the second run", second),
        ("rolled back", first),
    ]
    for (*_, counts), report in zip(seen, reports[::-1], strict=True):
        decisions = ("assigned", "needs_review", "rejected")
        assert counts == ", ".join(f"{report[name]} {name}" for name in decisions)
    assert reports[1]["photos_embedded"] < reports[0]["photos_embedded"]
