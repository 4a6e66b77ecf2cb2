"""The disk that the job writes to is full."""

import os
import shutil
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path

import pytest

from tests.small_disks import mounted_disk
from tests.spark.embedding_rows import error_line
from tests.spark.faults.watching import Watch
from tests.spark.manifest_rows import BY_RUN, DS, Categorize, ReadCategories

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_disk(tmp_path, 4 << 20) as disk:
        yield disk


def fill(disk: Path, but: int) -> Path:
    """Leave so many bytes."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - but))
    return ballast


@pytest.mark.parametrize("left", [0, 16384])
def test_of_the_categories(
    small_disk: Path,
    manifest: Path,
    listings: list[str],
    categorize: Categorize,
    read_categories: ReadCategories,
    capsys: pytest.CaptureFixture[str],
    left: int,
) -> None:
    output = small_disk / "categories"
    before = categorize(manifest, output)["run_id"]
    expected = read_categories(output).drop_columns(BY_RUN)
    with Watch.over(output / f"ds={DS}", listings) as watch:
        ballast = fill(small_disk, left)
        categorize(manifest, output, code=1)
        assert os.strerror(ENOSPC) in error_line(capsys)
        # Nothing of the run that failed takes room.
        assert len(list((output / "_runs" / f"ds={DS}").iterdir())) == 1
        ballast.unlink()
        after = categorize(manifest, output)["run_id"]
    assert watch.runs == [before, after]
    assert read_categories(output).drop_columns(BY_RUN).equals(expected)


def test_of_the_store(
    small_disk: Path,
    manifest: Path,
    output: Path,
    categorize: Categorize,
    read_categories: ReadCategories,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = small_disk / "store"
    store.mkdir()
    (store / "_lock").touch()
    ballast = fill(small_disk, 8192)
    categorize(manifest, output, "--embeddings", str(store), code=1)
    assert os.strerror(ENOSPC) in error_line(capsys)
    assert not (output / f"ds={DS}").exists()
    ballast.unlink()
    first = categorize(manifest, output, "--embeddings", str(store))
    assert first["store_files_damaged"] == 0
    table = read_categories(output).drop_columns(BY_RUN)
    again = categorize(manifest, output, "--embeddings", str(store))
    assert again["photos_embedded"] == 0
    assert read_categories(output).drop_columns(BY_RUN).equals(table)
