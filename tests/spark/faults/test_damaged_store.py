"""Damaged files: photos of the store are embedded again, a file of the manifest is named."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from seer_model.categorizer.bundle import Bundle
from tests.spark.faults.conftest import Published
from tests.support.embedding_rows import ONE, Upkeep, add_run, error_line
from tests.support.manifest_rows import BY_RUN, Categorize, ReadCategories

pytestmark = pytest.mark.spark


def flip_a_bit(file: Path) -> None:
    """Flip a bit of the largest column."""
    group = pq.read_metadata(file).row_group(0)
    chunks = [group.column(i) for i in range(group.num_columns)]
    chunk = max(chunks, key=lambda chunk: chunk.total_compressed_size)
    data = bytearray(file.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 4
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def remove_checksums(folder: Path) -> None:
    """Remove Hadoop's checksum files, which do not survive a copy by other tools."""
    for file in folder.rglob(".*.crc"):
        file.unlink()


DAMAGES = {"bit flipped": flip_a_bit, "truncated": truncate, "empty": empty}


@pytest.mark.slow
@pytest.mark.parametrize("checksums", [True, False], ids=["as written", "copied"])
def test_photos_of_damaged_files_are_embedded_again(
    manifest: Path,
    published: Published,
    bundle: Bundle,
    categorize: Categorize,
    read_categories: ReadCategories,
    checksums: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = published.store
    folder = store / f"backbone={bundle.backbone.digest}"

    def run() -> dict[str, Any]:
        caplog.clear()
        report = categorize(manifest, published.output, "--embeddings", str(store))
        assert read_categories(published.output).drop_columns(BY_RUN).equals(published.table)
        return report

    # Each run also shows that the one before has healed the store.
    for name, damage in DAMAGES.items():
        if not checksums:
            remove_checksums(store)
        hurt = max(folder.glob("run=*/*.parquet"), key=lambda file: file.stat().st_size)
        lost = pq.read_metadata(hurt).num_rows
        damage(hurt)
        report = run()
        # Spark itself skips an empty file.
        found = int(name != "empty")
        assert (name, report["store_files_damaged"]) == (name, found)
        assert report["photos_embedded"] == lost > 0
        assert ("1 damaged" in caplog.text) == found
        assert (store / "_damaged" / hurt.relative_to(store)).is_file() == found
    report = run()
    assert report["store_files_damaged"] == report["photos_embedded"] == 0


def test_upkeep_quarantines_damaged_files(upkeep: Upkeep, store: Path) -> None:
    add_run(store, ONE, "c", [["k8"], ["k9"]])
    truncate(store / f"backbone={ONE}" / "run=c" / "part-1.parquet")
    figures = upkeep()[f"backbone={ONE}"]
    assert figures["files_damaged"] == 1
    assert figures["rows_after"] == 6
    assert (store / "_damaged" / f"backbone={ONE}" / "run=c" / "part-1.parquet").is_file()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_named(
    damage: str,
    manifest: Path,
    output: Path,
    categorize: Categorize,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (file,) = manifest.rglob("*.parquet")
    # Not every producer writes checksums; without them a flipped bit is a broken photo.
    pq.write_table(pq.read_table(file), file, write_page_checksum=True, use_dictionary=False)
    DAMAGES[damage](file)
    categorize(manifest, output, code=3)
    assert file.name in error_line(capsys)
    assert not list(output.glob("ds=*"))
