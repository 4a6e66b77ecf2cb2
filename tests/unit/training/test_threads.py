"""Threads of a training beside other processes."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.paths import ROOT


@pytest.mark.parametrize("job", ["train_head", "pretrain_backbone"])
def test_threads_of_a_training_sleep_while_they_wait(job: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    ended = subprocess.run(
        [sys.executable, "-c", f"import jobs.{job}"],
        cwd=ROOT,
        env=environment | {"OMP_DISPLAY_ENV": "true"},  # It says what it was told, when loaded.
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(re.findall(r"OMP_WAIT_POLICY\s*=\s*'(\w+)'", ended.stderr)) == {"PASSIVE"}
