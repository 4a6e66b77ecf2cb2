"""Set-up: one line for an environment that is installed, everything that uv said if it fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

UV = """#!/bin/sh
case $1 in
venv) mkdir -p .venv/bin .venv/lib/python3/site-packages; exit ;;
esac
mkdir .venv/lib/python3/site-packages/one-1.0.dist-info
echo ' + one==1.0'
echo "$@" > arguments
exit {code}
"""


@pytest.mark.parametrize("code", [0, 2])
def test_what_uv_says_is_shown_only_when_it_fails(tmp_path: Path, code: int) -> None:
    uv = tmp_path / ".uv" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(UV.format(code=code), "utf-8")
    uv.chmod(0o755)

    done = subprocess.run(
        ["/bin/sh", str(ROOT / "scripts" / "install_lock.sh"), ".venv", "lock.txt"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )

    label = "Installing lock.txt into .venv"
    assert done.returncode == (1 if code else 0)
    assert done.stderr == (" + one==1.0\n" if code else "")
    first, *rest = done.stdout.strip().splitlines()
    assert first == label
    expected = [] if code else [f"{label}: 1 packages"]
    assert [line.partition(" in ")[0] for line in rest] == expected
    arguments = (tmp_path / "arguments").read_text("utf-8")
    assert "--require-hashes" in arguments
    assert "--build-constraints requirements/lock.txt lock.txt" in arguments
