"""The disk is full: the job fails, readers notice nothing, the next run is whole."""

import os
import shutil
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path

import pytest

from tests.spark.faults.conftest import Published
from tests.support.embedding_rows import error_line
from tests.support.manifest_rows import BY_RUN, DS, Categorize, ReadCategories
from tests.support.small_disks import mounted_disk
from tests.support.watching import Watch

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_disk(tmp_path, 4 << 20) as disk:
        yield disk


def fill(disk: Path, left: int) -> Path:
    """Fill the disk but for some bytes; returns the file that does."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - left))
    return ballast


def test_for_the_categories(
    small_disk: Path,
    manifest: Path,
    listings: list[str],
    published: Published,
    categorize: Categorize,
    read_categories: ReadCategories,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = small_disk / "categories"
    shutil.copytree(published.output, output, symlinks=True)
    stored = ("--embeddings", str(published.store))
    with Watch.over(output / f"ds={DS}", listings) as watch:
        # Not a byte to embed; then, with every embedding stored, a few to stage.
        for left, flags in ((0, ()), (4096, stored)):
            ballast = fill(small_disk, left)
            categorize(manifest, output, *flags, code=1)
            assert os.strerror(ENOSPC) in error_line(capsys)
            # The failed run leaves nothing.
            assert len(list((output / "_runs" / f"ds={DS}").iterdir())) == 1
            assert not list(output.glob("_scratch-*"))
            ballast.unlink()
        after = categorize(manifest, output, *stored)
    assert after["photos_embedded"] == 0
    assert watch.runs == [published.run, after["run_id"]]
    assert read_categories(output).drop_columns(BY_RUN).equals(published.table)


def test_for_the_store(
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
