"""Photos of 48 megapixels, in Python workers that the kernel gives 1 GB."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.workload import Workload
from seer_model.backbones.weights import random_backbone
from tests.support.huge_photos import huge_photos
from tests.support.manifest_rows import ReadCategories, WriteManifest, row
from tests.support.paths import ROOT
from tests.support.processes import fork_script

pytestmark = [pytest.mark.spark, pytest.mark.slow]

LIMIT_BYTES = 1_000_000_000
PHOTOS = 12

# What Spark forks its Python workers from.
DAEMON = """
import os
from pathlib import Path
from pyspark import daemon

if __name__ == "__main__":
    Path(os.environ["SEER_TEST_GROUP"], "cgroup.procs").write_text(str(os.getpid()))
    daemon.manager()
"""
JOB = "import sys; from jobs.categorize_listings import main; sys.exit(main(sys.argv[1:]))"


class MemoryGroup:
    """A control group of processes, of the kernel's first or second kind (cgroups(7))."""

    def __init__(self, limit: int) -> None:
        first = Path("/sys/fs/cgroup/memory")
        name = f"seer-test-{os.getpid()}"
        self.folder = (first if first.is_dir() else first.parent) / name
        limits, peak = "memory.max", "memory.peak"
        if first.is_dir():
            limits, peak = "memory.limit_in_bytes", "memory.max_usage_in_bytes"
        self._peak = self.folder / peak
        self.folder.mkdir()
        try:
            with (self.folder / limits).open("r+") as file:  # The kernel makes it, or nobody.
                file.write(str(limit))
        except OSError:
            self.folder.rmdir()
            raise

    def peak(self) -> int:
        return int(self._peak.read_text())


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    try:
        made = MemoryGroup(LIMIT_BYTES)
    except OSError:
        pytest.skip("limits on memory are not ours to set here")
    yield made
    made.folder.rmdir()


def test_many_are_categorized_within_the_limit(
    group: MemoryGroup,
    write_manifest: WriteManifest,
    output: Path,
    tracking_uri: str,
    read_categories: ReadCategories,
    tmp_path: Path,
) -> None:
    (tmp_path / "limited_daemon.py").write_text(DAEMON)
    paths = [tmp_path / f"{number}.photo" for number in range(3)]
    for path, photo in zip(paths, huge_photos(), strict=True):
        path.write_bytes(photo)
    rows = [row(f"{n // 2:02}", n % 2, image_uri=str(paths[n % 3])) for n in range(PHOTOS)]
    (tmp_path / "models").mkdir()
    options = {
        "manifest": write_manifest(tmp_path / "manifest", rows),
        "ds": "2026-11-25",
        "model": Workload(tmp_path / "models", random_backbone("regnety_002"), distinct=0).model,
        "output": output,
        "tracking-uri": tracking_uri,
    }
    done = fork_script(
        tmp_path,
        JOB,
        *[part for name, value in options.items() for part in (f"--{name}", str(value))],
        env={
            "MASTER": "local[1]",
            "PYTHONPATH": f"{tmp_path}:{ROOT}",
            "PYSPARK_SUBMIT_ARGS": "--conf spark.python.daemon.module=limited_daemon pyspark-shell",
            "SEER_TEST_GROUP": str(group.folder),
        },
    )
    assert done.returncode == 0, done.stderr
    table = read_categories(output)
    assert table.num_rows == PHOTOS // 2
    assert set(table["images_used"].to_pylist()) == {2}
    assert 300_000_000 < group.peak() <= LIMIT_BYTES  # The workers were in it.
