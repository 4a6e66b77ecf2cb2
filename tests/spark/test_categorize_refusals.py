"""What stops the main job: its exit code and line, and what was published before is left."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame

from jobs import categorize_listings
from jobs.stages.publish import hold_partition
from tests.support.manifest_rows import (
    DS,
    Categorize,
    DrawPhoto,
    ReadCategories,
    WriteManifest,
    row,
)

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def published(
    categorize: Categorize,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """A manifest whose categories were published: what a run that fails must leave alone."""
    # Spark takes these characters for a pattern, and fails over such a folder beside it.
    folder = tmp_path_factory.mktemp("published") / "a[b]{c,d}? *" / "10:00"
    (folder.parent / "11:00").mkdir(parents=True)
    rows = [row(f"old {i}", image_bytes=draw_photo("warm/red", i)) for i in range(3)]
    manifest = write_manifest(folder / "manifest", rows)
    categorize(manifest, folder / "categories")
    return manifest, folder / "categories"


@pytest.fixture
def untouched(published: tuple[Path, Path], read_categories: ReadCategories) -> Iterator[None]:
    """The published rows are there after the test as they were before, and nothing else is."""
    _, output = published
    before = read_categories(output)
    yield
    assert read_categories(output).equals(before)
    (run_id,) = set(before["run_id"].to_pylist())
    assert [path.name for path in (output / "_runs" / f"ds={DS}").iterdir()] == [run_id]


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    return line


@pytest.mark.usefixtures("untouched")
def test_model_that_is_not_there_is_2(
    published: tuple[Path, Path],
    categorize: Categorize,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    categorize(*published, "--model", str(tmp_path / "nowhere"), code=2)
    assert "nowhere: no such folder" in error_line(capsys)


@pytest.mark.parametrize("output", ["s3://bucket/categories", "hdfs://host/categories"])
def test_remote_output_is_2(
    published: tuple[Path, Path],
    categorize: Categorize,
    output: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    categorize(published[0], output, code=2)
    assert f"--output {output}" in error_line(capsys)


@pytest.mark.parametrize("manifest", ["s3://bucket/manifest", "10:00/manifest"])
def test_manifest_that_spark_cannot_open_is_2(
    published: tuple[Path, Path],
    manifest: str,
    categorize: Categorize,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    categorize(published[0], published[1], "--manifest", manifest, code=2)
    assert f"--manifest {manifest}/ds={DS}: Spark cannot open it: " in error_line(capsys)


@pytest.mark.usefixtures("untouched")
def test_missing_column_is_3(
    published: tuple[Path, Path],
    categorize: Categorize,
    write_manifest: WriteManifest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    schema = pa.schema([("listing_id", pa.string()), ("image_uri", pa.string())])
    manifest = write_manifest(tmp_path / "manifest", [{"listing_id": "a"}], schema=schema)
    categorize(manifest, published[1], code=3)
    assert "image_index" in error_line(capsys)


@pytest.mark.usefixtures("untouched")
def test_store_without_a_driver_is_2(
    published: tuple[Path, Path],
    categorize: Categorize,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [row(f"far {i}", image_uri=f"az://photos/{i}.jpg") for i in range(2)]
    rows.append(row("near", image_bytes=draw_photo("warm/red")))
    manifest = write_manifest(tmp_path / "manifest", rows)
    categorize(manifest, published[1], "--max-unread-share", "0.5", code=2)
    assert "2 of 3 photos are at az://" in (line := error_line(capsys))
    assert "pip install 'seer-categories[azure]'" in line


@pytest.mark.usefixtures("untouched")
def test_too_many_photos_that_cannot_be_read_are_4(
    published: tuple[Path, Path],
    categorize: Categorize,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [row(f"gone {i}", image_uri=f"{tmp_path}/{i}.jpg") for i in range(2)]
    rows += [row(f"here {i}", image_bytes=draw_photo("warm/red", i)) for i in range(3)]
    manifest = write_manifest(tmp_path / "manifest", rows)
    categorize(manifest, published[1], "--max-unread-share", "0.2", code=4)
    assert "2 of 5 photos (40%) could not be read: not_found" in error_line(capsys)


@pytest.mark.usefixtures("untouched")
def test_missing_partition_is_3(
    published: tuple[Path, Path], categorize: Categorize, capsys: pytest.CaptureFixture[str]
) -> None:
    categorize(*published, "--ds", "2026-11-24", code=3)
    assert "ds=2026-11-24" in error_line(capsys)
    assert not (published[1] / "ds=2026-11-24").exists()


@pytest.mark.usefixtures("untouched")
def test_partition_that_another_run_holds_is_5(
    published: tuple[Path, Path],
    categorize: Categorize,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest, output = published
    with hold_partition(output, DS, "another-run"):
        categorize(manifest, output, code=5)
    assert "another-run" in error_line(capsys)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "spoil",
    [lambda rows: rows.where("listing_id != 'old 1'"), lambda rows: rows.union(rows)],
    ids=["lost", "repeated"],
)
def test_listings_lost_or_repeated_are_3(
    published: tuple[Path, Path],
    categorize: Categorize,
    spoil: Callable[[DataFrame], DataFrame],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    score = categorize_listings.score_photos
    monkeypatch.setattr(categorize_listings, "score_photos", lambda *args: spoil(score(*args)))
    categorize(*published, code=3)
    assert "nothing was published" in error_line(capsys)


@pytest.mark.usefixtures("untouched")
def test_damage_found_on_the_way_is_3(
    published: tuple[Path, Path],
    categorize: Categorize,
    write_manifest: WriteManifest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = write_manifest(tmp_path / "manifest", [row("a", image_bytes=b"photo")])
    file = manifest / f"ds={DS}" / "part-0.parquet"
    data = file.read_bytes()
    file.write_bytes(data[:4] + bytes(40) + data[44:])
    categorize(manifest, published[1], code=3)
    assert file.name in error_line(capsys)
