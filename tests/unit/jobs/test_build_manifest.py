"""The manifest job: a folder of photos becomes a partition, tracked and published whole."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from PIL import Image

from jobs.build_manifest import main
from jobs.stages.publish.folder import FolderOutput
from seer_model import __version__
from tests.support.listing_tables import DS, LISTINGS, PhotoBytes, Rows, columns, sha256, table


def test_every_photo_of_a_folder_is_a_listing(build: Callable[..., Rows], images: Path) -> None:
    (images / "notes.txt").write_text("no photo", encoding="utf-8")
    (images / "shoes/A.JPG").write_bytes(b"not an image, which the jobs that decode reject")
    (images / "folder.jpg").mkdir()
    rows = build()
    assert columns(rows, "listing_id", "image_index") == [
        ("hat.png", 0),
        ("shoes/A.JPG", 0),
        ("shoes/b.jpg", 0),
    ]
    for row in rows:
        path = images / row["listing_id"]
        assert row["image_uri"] == str(path)
        assert row["image_key"] == sha256(path)
    assert {row["category_id"] for row in rows} == {row["split"] for row in rows} == {None}


def test_every_file_of_a_folder_is_a_listing_or_counted(
    build: Callable[..., Rows],
    images: Path,
    tmp_path: Path,
    photo_bytes: PhotoBytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    photo = photo_bytes(3)
    for name in ("a.jfif", "b.JPE", "c.heic", "d.heif", "no suffix", "e.jpg_large"):
        (images / name).write_bytes(photo)
    for folder in ("__MACOSX", ".thumbs", "@eaDir/b.jpg", "elsewhere"):
        (images / folder).mkdir(parents=True)
    left_out = ["._a.jpg", "__MACOSX/a.jpg", ".thumbs/a.jpg", "@eaDir/b.jpg/M.jpg"]
    for name in (*left_out, "Thumbs.db"):
        (images / name).write_bytes(b"\0\5\x16\7" if name.startswith("._") else photo)
    (images / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (images / "linked").symlink_to(tmp_path)
    (images / "gone.jpg").symlink_to(images / "nothing")
    os.mkfifo(images / "pipe")
    bad_name = os.fsencode(images) + b"/caf\xe9.jpg"
    Path(os.fsdecode(bad_name)).write_bytes(photo)

    report = tmp_path / "report.json"
    rows = build("--report", str(report))
    assert [row["listing_id"] for row in rows] == [
        *("a.jfif", "b.JPE", "c.heic", "d.heif", "e.jpg_large", "hat.png", "no suffix"),
        "shoes/b.jpg",
    ]
    assert json.loads(report.read_text(encoding="utf-8"))["files_left_out"] == {
        "hidden": 4,
        "linked_folder": 1,
        "not_a_file": 2,
        "not_a_photo": 1,
        "not_utf8": 1,
    }
    assert "left out: 4 files, hidden, such as '._a.jpg'" in caplog.text
    assert "left out: 1 files, not utf8, such as 'caf\ufffd.jpg'" in caplog.text


def test_addresses_are_absolute(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images.parent)
    assert main(["--images", "images", "--output", "manifest", "--ds", DS]) == 0
    monkeypatch.chdir("/")
    uris = pd.read_parquet(tmp_path / "manifest")["image_uri"]
    assert all(Path(uri).is_file() for uri in uris)


def test_photos_in_the_manifest(build: Callable[..., Rows], images: Path) -> None:
    rows = build("--embed-bytes")
    assert columns(rows, "image_uri", "image_bytes", "image_key") == [
        (None, (images / name).read_bytes(), sha256(images / name))
        for name in ("hat.png", "shoes/b.jpg")
    ]


def test_measured_photos_have_slices(
    report: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Image.new("RGB", (300, 200), (200, 0, 0)).save(images / "shoes/b.jpg")
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff not a photo")
    listings = f"{LISTINGS}L4,,0,broken.jpg,caps,val\n"
    figures = report(listings, "--measure-photos", "--slice-column", "title")
    assert (figures["photos_missing"], figures["photos_not_measured"]) == (1, 1)
    assert "1 photos could not be decoded" in caplog.text
    found = pd.read_parquet(tmp_path / "manifest").set_index(["listing_id", "image_index"])
    slices = {key: dict(row) for key, row in found["slices"].items()}
    assert slices["L1", 0] == {
        "title": "Boots, brown",
        "day": DS,
        "brightness": "dark",
        "sharpness": "low",
        "object": "small",
        "colour": "red",
    }
    # Not there; not a photo.
    assert slices["L1", 1] == {"title": "Boots, brown", "day": DS}
    assert slices["L4", 0] == {"day": DS}


def test_a_slice_has_one_source(fail: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    listings = table(tmp_path, LISTINGS.replace("title", "colour"))
    code, line = fail("--listings", listings, "--slice-column", "colour", "--measure-photos")
    assert (code, "--slice-column colour: --measure-photos makes" in line) == (2, True)


def test_readers_need_to_hold_few_photos(build: Callable[..., Rows], tmp_path: Path) -> None:
    """A page of Parquet has few rows."""
    photo_bytes = 100_000
    folder = tmp_path / "noise"
    folder.mkdir()
    for number in range(100):
        noise = random.Random(number).randbytes(photo_bytes)
        (folder / f"{number:03}.jpg").write_bytes(noise)
    build("--images", str(folder), "--embed-bytes")
    (file,) = (tmp_path / "manifest" / f"ds={DS}").iterdir()
    pool = pa.default_memory_pool()
    held = pool.bytes_allocated()
    with pq.ParquetFile(file, pre_buffer=False, buffer_size=2**16) as manifest:
        batches = manifest.iter_batches(batch_size=1)
        rows = next(batches)
        assert len(rows["image_bytes"][0].as_py()) == photo_bytes
        assert pool.bytes_allocated() - held < 32 * photo_bytes


def test_report(report: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    figures = report(LISTINGS)
    assert figures.keys() >= {"digest", "run_id"}
    assert {k: v for k, v in figures.items() if k not in {"digest", "run_id"}} == {
        "manifest": str(tmp_path / "manifest"),
        "published": str(tmp_path / "manifest" / f"ds={DS}"),
        "ds": DS,
        "photos": 4,
        "photos_missing": 1,
        "listings": 3,
        "listings_labelled": 2,
        "listings_by_split": {"none": 1, "train": 1, "val": 1},
        "columns_not_read": ["title"],
        "listings_with_two_labels": 0,
        "listings_with_two_splits": 0,
    }
    # The digest depends on the rows, but not on their order.
    head, *rows = LISTINGS.splitlines()
    assert report("\n".join([head, *rows[::-1]]))["digest"] == figures["digest"]
    assert report(LISTINGS.replace("val", "test"))["digest"] != figures["digest"]


def test_mlflow_run(report: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    figures = report(LISTINGS, "--split", "train")
    run = MlflowClient().get_run(figures["run_id"])
    assert (run.info.run_name, run.info.status) == ("build_manifest 2026-11-25", "FINISHED")
    assert run.data.params["split"] == "['train']"
    assert run.data.tags["package_version"] == __version__
    assert run.data.metrics == {
        "photos": 2,
        "photos_missing": 1,
        "listings": 1,
        "listings_labelled": 1,
        "listings_by_split.train": 1,
        "listings_with_two_labels": 0,
        "listings_with_two_splits": 0,
    }
    (built,) = run.inputs.dataset_inputs
    assert built.dataset.name == f"{tmp_path / 'manifest'}/ds={DS}"
    assert built.dataset.digest == figures["digest"]
    run_id = figures["run_id"]
    path = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="report.json")
    assert json.loads(Path(path).read_text(encoding="utf-8")) == figures
    (file,) = (tmp_path / "manifest" / f"ds={DS}").iterdir()
    assert file.name == f"part-{run_id}.parquet"


def test_a_second_run_replaces_the_first(
    build: Callable[..., Rows], images: Path, tmp_path: Path
) -> None:
    build()
    (first,) = (tmp_path / "manifest" / f"ds={DS}").iterdir()
    (images / "shoes/b.jpg").unlink()
    assert columns(build(), "listing_id") == [("hat.png",)]
    assert columns(build(), "listing_id") == [("hat.png",)]
    (third,) = (tmp_path / "manifest" / f"ds={DS}").iterdir()
    assert third.name != first.name  # A reader that listed the first cannot open another's rows.
    assert len(pd.read_parquet(tmp_path / "manifest")) == 1


def test_a_failed_run_leaves_the_old_rows(
    build: Callable[..., Rows], images: Path, tmp_path: Path
) -> None:
    before = build()
    bad = table(tmp_path, "listing_id,path\n,hat.png\n")
    output = tmp_path / "manifest"
    argv = ["--images", str(images), "--output", str(output), "--ds", DS, "--listings", bad]
    assert main(argv) == 3
    (file,) = (output / f"ds={DS}").iterdir()
    assert pq.read_table(file, partitioning=None).to_pylist() == before


def test_another_run_holds_the_partition(
    fail: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    with FolderOutput(tmp_path / "manifest").hold(DS, "the-other"):
        code, line = fail()
    assert code == 5
    assert "held by run the-other" in line


def test_no_photos_are_3(
    fail: Callable[..., tuple[int, str]], images: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    code, line = fail("--images", str(tmp_path / "empty"))
    assert (code, "empty: no photo; left out: 1 files, not a photo" in line) == (3, True)
    not_utf8 = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    not_utf8.mkdir()
    code, line = fail("--images", str(not_utf8))
    assert (code, "the name is not UTF-8" in line) == (2, True)
    code, line = fail("--listings", table(tmp_path, LISTINGS), "--split", "tset")
    assert (code, "no photo in the splits tset" in line) == (3, True)


@pytest.mark.parametrize("flag", ["--slice-column", "--label-map"])
def test_slices_and_labels_without_a_table_are_2(
    fail: Callable[..., tuple[int, str]], flag: str
) -> None:
    code, line = fail(flag, "seller")
    assert (code, "need --listings" in line) == (2, True)


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--images", "nosuch"),
        ("--images", "images/hat.png"),
        ("--listings", "nosuch.csv"),
        ("--listings", "images"),
        ("--label-map", "nosuch.csv"),
        ("--output", "images/hat.png"),
    ],
)
def test_paths_that_do_not_exist_are_2(
    fail: Callable[..., tuple[int, str]], tmp_path: Path, flag: str, name: str
) -> None:
    listings = ("--listings", table(tmp_path, LISTINGS)) if flag == "--label-map" else ()
    code, line = fail(*listings, flag, str(tmp_path / name))
    assert code == 2
    assert str(tmp_path / name) in line
