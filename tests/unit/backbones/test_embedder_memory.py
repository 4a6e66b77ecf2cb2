"""The peak memory of a worker is bounded by its settings, not by its photos."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

GIB = 1 << 30

EMBED = """
from pathlib import Path
from seer_model.backbones.weights import random_backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.photos.source import PhotoSource
from tests.support.huge_photos import huge_photos

photos = huge_photos()
Path("/proc/self/clear_refs").write_text("5")  # Resets the peak.
embedder = PhotoEmbedder.open(random_backbone("regnety_008"), threads=2)
sources = (PhotoSource(None, photos[n % 3]) for n in range(12))
print(sum(photo.vector is not None for photo in embedder.embed(sources)))
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc of Linux")
def test_photos_of_48_megapixels_fit_into_a_worker_of_2_gigabytes() -> None:
    """With a decoded copy of each kept, they would not."""
    done = subprocess.run(
        [sys.executable, "-c", EMBED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    embedded, peak_kib = map(int, done.stdout.split())
    assert embedded == 12
    assert peak_kib * 1024 < 2 * GIB
