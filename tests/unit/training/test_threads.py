"""Threads of a training beside other processes."""

import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

# Ends where torch would be imported, and with it OpenMP, which reads the variable as it is loaded.
IMPORT = """
import os, sys

class Torch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Torch())
import jobs.{job}
"""


@pytest.mark.parametrize("job", ["train_head", "pretrain_backbone"])
@pytest.mark.parametrize(("given", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "A"}, "A")])
def test_threads_of_a_training_sleep_while_they_wait_unless_told_otherwise(
    job: str, given: dict[str, str], policy: str
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    ended = subprocess.run(
        [sys.executable, "-c", IMPORT.format(job=job)],
        cwd=ROOT,
        env=environment | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.strip() == policy
