"""The decoding process starts fast. For what it survives, see `test_faulty_decoder`."""

import subprocess
import sys

from tests.support.paths import ROOT


def test_the_decoding_process_imports_no_torch() -> None:
    """Torch takes two seconds, of every retried task and after every photo that crashes it."""
    script = "import sys, seer_model.photos.isolated; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
