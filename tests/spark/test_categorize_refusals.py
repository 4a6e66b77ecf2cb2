"""What stops the main job: its exit code and line, and what was published before is left."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame

from jobs import categorize_listings
from jobs.stages.publish.folder import FolderOutput
from tests.support.embedding_rows import error_line
from tests.support.manifest_rows import (
    DS,
    Categorize,
    DrawPhoto,
    ReadCategories,
    WriteManifest,
    row,
)

pytestmark = pytest.mark.spark

Refusal = Callable[..., str]


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
def refusal(
    published: tuple[Path, Path],
    categorize: Categorize,
    read_categories: ReadCategories,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Refusal]:
    """Runs the job on the published partition, and gives the line that says why it ends.

    After the test the published rows are there as they were before, and nothing else is.
    """
    output = published[1]
    before = read_categories(output)

    def run(*flags: str, code: int, manifest: Path = published[0]) -> str:
        categorize(manifest, output, *flags, code=code)
        return error_line(capsys)

    yield run
    assert read_categories(output).equals(before)
    (run_id,) = set(before["run_id"].to_pylist())
    assert [path.name for path in (output / "_runs" / f"ds={DS}").iterdir()] == [run_id]


def test_model_that_is_not_there_is_2(refusal: Refusal, tmp_path: Path) -> None:
    line = refusal("--model", str(tmp_path / "nowhere"), code=2)
    assert "nowhere: no such folder" in line


@pytest.mark.parametrize("output", ["s3://bucket/categories", "hdfs://host/categories"])
def test_remote_output_is_2(refusal: Refusal, output: str) -> None:
    said = refusal("--output", output, code=2)
    assert f"--output: {output} is no local or mounted folder" in said
    assert "table:CATALOG.NAMESPACE.NAME" in said


@pytest.mark.parametrize("manifest", ["s3://bucket/manifest", "10:00/manifest"])
def test_manifest_that_spark_cannot_open_is_2(refusal: Refusal, manifest: str) -> None:
    line = refusal("--manifest", manifest, code=2)
    assert f"--manifest {manifest}/ds={DS}: Spark cannot open it: " in line


def test_missing_column_is_3(
    refusal: Refusal, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    schema = pa.schema([("listing_id", pa.string()), ("image_uri", pa.string())])
    manifest = write_manifest(tmp_path / "manifest", [{"listing_id": "a"}], schema=schema)
    assert "image_index" in refusal(code=3, manifest=manifest)


def test_store_without_a_driver_is_2(
    refusal: Refusal, write_manifest: WriteManifest, draw_photo: DrawPhoto, tmp_path: Path
) -> None:
    rows = [row(f"far {i}", image_uri=f"az://photos/{i}.jpg") for i in range(2)]
    rows.append(row("near", image_bytes=draw_photo("warm/red")))
    manifest = write_manifest(tmp_path / "manifest", rows)
    line = refusal("--max-unread-share", "0.5", code=2, manifest=manifest)
    assert "2 of 3 photos are at az://" in line
    assert "pip install 'seer-categories[azure]'" in line


def test_too_many_photos_that_cannot_be_read_are_4(
    refusal: Refusal, write_manifest: WriteManifest, draw_photo: DrawPhoto, tmp_path: Path
) -> None:
    rows = [row(f"gone {i}", image_uri=f"{tmp_path}/{i}.jpg") for i in range(2)]
    rows += [row(f"here {i}", image_bytes=draw_photo("warm/red", i)) for i in range(3)]
    manifest = write_manifest(tmp_path / "manifest", rows)
    line = refusal("--max-unread-share", "0.2", code=4, manifest=manifest)
    assert "2 of 5 photos (40%) could not be read: not_found" in line


def test_missing_partition_is_3(refusal: Refusal, published: tuple[Path, Path]) -> None:
    assert "ds=2026-11-24" in refusal("--ds", "2026-11-24", code=3)
    assert not (published[1] / "ds=2026-11-24").exists()


def test_partition_that_another_run_holds_is_5(
    refusal: Refusal, published: tuple[Path, Path]
) -> None:
    with FolderOutput(published[1]).hold(DS, "another-run"):
        assert "another-run" in refusal(code=5)


@pytest.mark.parametrize(
    "spoil",
    [lambda rows: rows.where("listing_id != 'old 1'"), lambda rows: rows.union(rows)],
    ids=["lost", "repeated"],
)
def test_listings_lost_or_repeated_are_3(
    refusal: Refusal,
    spoil: Callable[[DataFrame], DataFrame],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    score = categorize_listings.score_photos
    monkeypatch.setattr(categorize_listings, "score_photos", lambda *args: spoil(score(*args)))
    assert "nothing was published" in refusal(code=3)


def test_damage_found_on_the_way_is_3(
    refusal: Refusal, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path / "manifest", [row("a", image_bytes=b"photo")])
    file = manifest / f"ds={DS}" / "part-0.parquet"
    data = file.read_bytes()
    file.write_bytes(data[:4] + bytes(40) + data[44:])
    assert file.name in refusal(code=3, manifest=manifest)
