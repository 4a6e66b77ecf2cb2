"""Damaged files: the store's photos are embedded again, the manifest's file is named."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from seer_model.bundle import Bundle
from tests.spark.embedding_rows import ONE, Upkeep, add_run, error_line
from tests.spark.manifest_rows import BY_RUN, Categorize, ReadCategories

pytestmark = pytest.mark.spark


def flip_a_bit(file: Path) -> None:
    """Of what the file holds most of."""
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


def forget_checksums(folder: Path) -> None:
    """Remove Hadoop's own, which do not survive a copy by other tools."""
    for file in folder.rglob(".*.crc"):
        file.unlink()


DAMAGES = {"bit flipped": flip_a_bit, "truncated": truncate, "empty": empty}


@pytest.mark.slow
@pytest.mark.parametrize("checksums", [True, False], ids=["as written", "copied"])
def test_photos_of_damaged_files_are_embedded_again(
    manifest: Path,
    output: Path,
    bundle: Bundle,
    categorize: Categorize,
    read_categories: ReadCategories,
    tmp_path: Path,
    checksums: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sound, store = tmp_path / "sound", tmp_path / "store"
    photos = categorize(manifest, output, "--embeddings", str(sound))["photos_embedded"]
    expected = read_categories(output).drop_columns(BY_RUN)
    for name, damage in DAMAGES.items():
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(sound, store)
        if not checksums:
            forget_checksums(store)
        folder = store / f"backbone={bundle.backbone.digest}"
        hurt = max(folder.glob("run=*/*.parquet"), key=lambda file: file.stat().st_size)
        lost = pq.read_metadata(hurt).num_rows
        assert 0 < lost <= photos
        damage(hurt)

        caplog.clear()
        report = categorize(manifest, output, "--embeddings", str(store))
        # Spark passes over a file without a byte by itself.
        found = int(name != "empty")
        assert (name, report["store_files_damaged"]) == (name, found)
        assert report["photos_embedded"] == lost
        assert ("1 damaged files of the store moved to" in caplog.text) == found
        assert read_categories(output).drop_columns(BY_RUN).equals(expected)
        assert (store / "_damaged" / hurt.relative_to(store)).is_file() == found

        report = categorize(manifest, output, "--embeddings", str(store))
        assert report["store_files_damaged"] == report["photos_embedded"] == 0
        assert read_categories(output).drop_columns(BY_RUN).equals(expected)


def test_upkeep_sets_damaged_files_aside(upkeep: Upkeep, store: Path) -> None:
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
