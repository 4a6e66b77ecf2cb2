"""Whether a process has ended, and the scratch folders of those that were killed."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from seer_model import processes
from seer_model.processes import has_ended, process_mark
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")

CHILD = """
import sys
from seer_model.processes import process_mark, scratch_folder
print(process_mark(), scratch_folder(), sep="\\n", flush=True)
sys.stdin.read()
"""


def test_a_scratch_folder_of_a_killed_process_is_removed_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = process_mark()
    assert own is not None
    marks = {
        "alive": own,
        "elsewhere": own.replace(" ", "-other-host ", 1),
        "half": own.rpartition(" ")[0],
        "empty": "",
    }
    for name, mark in marks.items():
        (tmp_path / f"seer-{name}").mkdir()
        (tmp_path / f"seer-{name}" / "process").write_text(mark, encoding="utf-8")
    (tmp_path / "seer-unmarked").mkdir()
    kept = {path.name for path in tmp_path.iterdir()}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        mark, folder = (child.stdout.readline().strip() for _ in range(2))
        (Path(folder) / "model.zip").write_bytes(b"weights")
        processes._remove_abandoned()
        assert not has_ended(mark)
        assert Path(folder).exists()
        child.kill()
    assert has_ended(mark)
    assert Path(folder).exists()
    processes._remove_abandoned()
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_scratch_folder_goes_with_its_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.splitlines()[1]).parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_pid_that_another_process_has_now() -> None:
    own = process_mark()
    assert own is not None
    assert not has_ended(own)
    assert has_ended(f"{own.rpartition(' ')[0]} 1")


@pytest.mark.parametrize("mark", ["", " ", "a", "a b c", "host boot pid:[1] 1 1"])
def test_a_mark_that_proves_nothing(mark: str) -> None:
    assert not has_ended(mark)
