"""The manifest job: a folder of photos, with or without a table, becomes a partition."""

import hashlib
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

from jobs.build_manifest import main
from jobs.stages.publish import hold_partition
from schemas.manifest import MANIFEST, check_manifest
from seer_model import __version__

PhotoBytes = Callable[..., bytes]
Rows = list[dict[str, Any]]

DS = "2026-11-25"
LISTINGS = """\
listing_id,title,image_index,path,category_id,split
L1,"Boots, brown",0,shoes/b.jpg,boots,train
L1,"Boots, brown",1,shoes/nosuch.jpg,boots,train
L2,Cap,0,hat.png,caps,val
L3,,0,hat.png,,
"""


@pytest.fixture
def images(tmp_path: Path, photo_bytes: PhotoBytes) -> Path:
    folder = tmp_path / "images"
    (folder / "shoes").mkdir(parents=True)
    (folder / "hat.png").write_bytes(photo_bytes(1, form="PNG"))
    (folder / "shoes/b.jpg").write_bytes(photo_bytes(2))
    return folder


@pytest.fixture
def build(images: Path, tmp_path: Path) -> Callable[..., Rows]:
    """Runs the job, checks what it wrote and returns the rows."""

    def call(*argv: str) -> Rows:
        output = tmp_path / "manifest"
        assert main(["--images", str(images), "--output", str(output), "--ds", DS, *argv]) == 0
        (file,) = (output / f"ds={DS}").iterdir()
        check_manifest(pq.read_schema(file), str(file))
        table = pq.read_table(file, partitioning=None)
        assert table.schema == MANIFEST
        rows: Rows = table.to_pylist()
        for row in rows:
            assert (row["image_uri"] is None) != (row["image_bytes"] is None)
        return rows

    return call


@pytest.fixture
def fail(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs the job, which must fail; returns its exit code and its line."""

    def call(*argv: str) -> tuple[int, str]:
        output = tmp_path / "manifest"
        code = main(["--images", str(images), "--output", str(output), "--ds", DS, *argv])
        assert not (output / f"ds={DS}").exists()
        (line,) = capsys.readouterr().err.splitlines()
        return code, line

    return call


def table(tmp_path: Path, text: str | bytes, name: str = "listings.csv") -> str:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def columns(rows: Rows, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


# A folder


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


# A table


def test_listings_of_a_table(build: Callable[..., Rows], images: Path, tmp_path: Path) -> None:
    rows = build("--listings", table(tmp_path, LISTINGS))
    names = ("listing_id", "image_index", "category_id", "split", "image_key")
    assert columns(rows, *names) == [
        ("L1", 0, "boots", "train", sha256(images / "shoes/b.jpg")),
        ("L1", 1, "boots", "train", None),
        ("L2", 0, "caps", "val", sha256(images / "hat.png")),
        ("L3", 0, None, None, sha256(images / "hat.png")),
    ]
    assert rows[1]["image_uri"] == str(images / "shoes/nosuch.jpg")


def test_a_missing_photo_keeps_its_address(build: Callable[..., Rows], tmp_path: Path) -> None:
    """So that the daily job reports it, and finds it once it is there."""
    rows = build("--listings", table(tmp_path, LISTINGS), "--embed-bytes")
    assert [row["image_bytes"] is None for row in rows] == [False, True, False, False]
    assert rows[1]["image_uri"].endswith("nosuch.jpg")


@pytest.mark.parametrize("header", ["path,listing_id", "\ufeffpath,listing_id"])
def test_columns_that_may_be_missing(
    build: Callable[..., Rows], tmp_path: Path, header: str
) -> None:
    text = f"{header}\nhat.png,L2\nhat.png,L1\nhat.png,L2\n"
    rows = build("--listings", table(tmp_path, text))
    assert columns(rows, "listing_id", "image_index") == [("L2", 0), ("L1", 0), ("L2", 1)]


def test_absolute_paths_of_a_table(
    build: Callable[..., Rows], images: Path, tmp_path: Path
) -> None:
    text = f"listing_id,path\nL1,{images / 'hat.png'}\n"
    (row,) = build("--listings", table(tmp_path, text))
    assert row["image_uri"] == str(images / "hat.png")


def test_splits(build: Callable[..., Rows], tmp_path: Path) -> None:
    listings = table(tmp_path, LISTINGS)
    assert columns(build("--listings", listings, "--split", "val"), "listing_id") == [("L2",)]
    both = build("--listings", listings, "--split", "val", "--split", "train")
    assert columns(both, "listing_id") == [("L1",), ("L1",), ("L2",)]


def test_many_rows_keep_their_order(build: Callable[..., Rows], tmp_path: Path) -> None:
    text = "listing_id,path\n" + "".join(f"L{i},hat.png\n" for i in range(2001))
    rows = build("--listings", table(tmp_path, text))
    assert columns(rows, "listing_id") == [(f"L{i}",) for i in range(2001)]


def test_columns_become_slices(build: Callable[..., Rows], tmp_path: Path) -> None:
    text = "listing_id,path,seller,country\nL1,hat.png,shop,DE\nL2,hat.png,,FR\nL3,hat.png,,\n"
    flags = ("--slice-column", "seller", "--slice-column", "country")
    rows = build("--listings", table(tmp_path, text), *flags)
    slices = [row["slices"] for row in rows]
    assert slices == [[("seller", "shop"), ("country", "DE")], [("country", "FR")], None]


def test_label_map(build: Callable[..., Rows], tmp_path: Path) -> None:
    labels = table(tmp_path, "category_id,shopify_id,mine\nboots,aa-8,b\ncaps,,c\n", "labels.csv")
    listings = ("--listings", table(tmp_path, LISTINGS))
    rows = build(*listings, "--label-map", labels)
    assert columns(rows, "category_id") == [("aa-8",), ("aa-8",), (None,), (None,)]
    rows = build(*listings, "--label-map", labels, "--label-column", "mine")
    assert columns(rows, "category_id") == [("b",), ("b",), ("c",), (None,)]


def test_column_names_with_blanks_and_capitals_are_those_of_the_contract(
    build: Callable[..., Rows], tmp_path: Path
) -> None:
    text = "Listing ID, path, Category_ID, SPLIT, Country\nL1, hat.png, caps, Val, DE\n"
    rows = build("--listings", table(tmp_path, text), "--slice-column", "country")
    names = ("listing_id", "category_id", "split", "slices")
    assert columns(rows, *names) == [("L1", "caps", "val", [("country", "DE")])]


def test_a_category_is_a_label_where_there_is_no_category_id(
    build: Callable[..., Rows], tmp_path: Path
) -> None:
    text = "listing_id,path,category\nL1,hat.png,caps\n"
    assert columns(build("--listings", table(tmp_path, text)), "category_id") == [("caps",)]
    text = "listing_id,path,category,category_id\nL1,hat.png,Caps and hats,caps\n"
    assert columns(build("--listings", table(tmp_path, text)), "category_id") == [("caps",)]


def test_lines_and_cells_that_hold_nothing_are_no_rows(
    build: Callable[..., Rows], tmp_path: Path
) -> None:
    text = "listing_id,path\nL1,hat.png,,\n,,,\n\n"
    assert columns(build("--listings", table(tmp_path, text)), "listing_id") == [("L1",)]


def test_a_listing_has_the_label_and_split_that_one_of_its_rows_states(
    build: Callable[..., Rows], tmp_path: Path
) -> None:
    """As in exports that fill in the first row of a product only."""
    text = "listing_id,path,category_id,split\nL1,hat.png,caps,val\nL1,shoes/b.jpg,,\n"
    rows = build("--listings", table(tmp_path, text), "--split", "val")
    assert columns(rows, "category_id", "split") == [("caps", "val")] * 2


def test_a_listing_with_two_labels_or_two_splits_gets_neither(
    build: Callable[..., Rows], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        "listing_id,path,category_id,split\n"
        "L1,hat.png,caps,train\nL1,shoes/b.jpg,boots,train\n"
        "L2,hat.png,caps,train\nL2,shoes/b.jpg,caps,val\n"
        "L3,hat.png,caps,train\n"
    )
    report = tmp_path / "report.json"
    rows = build("--listings", table(tmp_path, text), "--report", str(report))
    assert columns(rows, "listing_id", "category_id", "split") == [
        *[("L1", None, None)] * 2,
        *[("L2", None, None)] * 2,
        ("L3", "caps", "train"),
    ]
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert figures["listings_with_two_labels"] == figures["listings_with_two_splits"] == 1
    assert "1 listings have two labels" in caplog.text
    assert "'L2'" in caplog.text


def test_paths_cannot_leave_the_folder_by_its_links(
    build: Callable[..., Rows], images: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "hat.png").write_bytes(b"secret")
    (images / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    (row,) = build("--listings", table(tmp_path, "listing_id,path\nL1,link/../hat.png\n"))
    assert row["image_uri"] == str(images / "hat.png")


# The report and the MLflow run


@pytest.fixture
def report(build: Callable[..., Rows], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs the job on a table and returns its report."""

    def call(listings: str, *flags: str) -> dict[str, Any]:
        path = tmp_path / "reports" / "report.json"
        build("--listings", table(tmp_path, listings), "--report", str(path), *flags)
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return figures

    return call


def test_report(report: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    figures = report(LISTINGS)
    assert figures.keys() >= {"digest", "run_id"}
    assert {k: v for k, v in figures.items() if k not in {"digest", "run_id"}} == {
        "manifest": str(tmp_path / "manifest"),
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


# Reruns


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
    with hold_partition(tmp_path / "manifest", DS, "the-other"):
        code, line = fail()
    assert code == 5
    assert "held by run the-other" in line


# Refusals


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listing_id,image_index\nL1,0\n", "listings.csv: no column path"),
        ("", "listings.csv: no column listing_id, path"),
        ("listing_id,path\nL1,a.jpg\n,hat.png\n", "listings.csv, line 3: listing_id or path"),
        ('listing_id,path\n"L\n1",a.jpg\nL2,\n', "listings.csv, line 4: listing_id or path"),
        ("listing_id,path\nL1\n", "listings.csv, line 2: 1 cells for 2 columns"),
        ("listing_id,path,image_index\nL1,a.jpg,first\n", "line 2: image_index 'first'"),
        ("listing_id,path,image_index\nL1,a.jpg,-1\n", "line 2: image_index '-1'"),
        ("listing_id,path,image_index\nL1,a.jpg,3000000000\n", "line 2: image_index '3000000000'"),
        (f"listing_id,path,image_index\nL1,a.jpg,{'9' * 5000}\n", "line 2: image_index '999"),
        (b"listing_id,path\nL1,caf\xe9.jpg\n", "listings.csv: not UTF-8"),
        (f"listing_id,path\nL1,{'x' * 200_000}\n", "listings.csv, line 2: field larger"),
        ("listing_id,path\n", "listings.csv: no photo"),
        ("listing_id,path,split\nL1,hat.png,train,val\n", "line 2: 4 cells for 3 columns"),
        ("listing_id,path,split\nL1,hat.png,validation\n", "line 2: split 'validation': the jobs"),
        ("listing_id,path,Path\nL1,hat.png,b.jpg\n", "listings.csv: 2 columns are called path"),
        ("listing_id,path\nL1,/etc/passwd\n", "line 2: path '/etc/passwd' lies outside"),
        (
            "listing_id,path\nL1,shoes/../../b.jpg\n",
            "line 2: path 'shoes/../../b.jpg' lies outside",
        ),
        ("listing_id,path\nL1,https://a.example/b.jpg\n", "line 2: path 'https://a.example/b.jpg'"),
        ("listing_id,path\nL1,hats.png\n", "none of the 1 photos can be read"),
        (f"listing_id,path\nL1,{'x' * 300}\n", "none of the 1 photos can be read"),
        (
            "listing_id,path,category_id\nL1,hat.png,caps\nL1,hat.png,boots\n",
            "no category_id is left of those given; 1 listings have two labels",
        ),
        (
            "listing_id,path,split\nL1,hat.png,train\nL1,hat.png,val\n",
            "no split is left of those given; 1 listings have two splits",
        ),
    ],
)
def test_bad_tables_are_3(
    fail: Callable[..., tuple[int, str]], tmp_path: Path, text: str | bytes, message: str
) -> None:
    code, line = fail("--listings", table(tmp_path, text))
    assert code == 3
    assert message in line


def test_labels_that_the_map_lacks_are_said_and_a_map_without_any_is_3(
    report: Callable[..., dict[str, Any]],
    fail: Callable[..., tuple[int, str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    labels = table(tmp_path, "category_id,shopify_id\nsocks,aa-9\n", "labels.csv")
    code, line = fail("--listings", table(tmp_path, LISTINGS), "--label-map", labels)
    assert (code, "no category_id is left of those given; 2 labels" in line) == (3, True)
    labels = table(tmp_path, "category_id,shopify_id\nboots,aa-8\n", "labels.csv")
    assert report(LISTINGS, "--label-map", labels)["labels_not_mapped"] == ["caps"]
    assert "1 labels have none in" in caplog.text


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


def test_missing_columns_and_two_labels_in_a_map_are_3(
    fail: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    labels = table(tmp_path, "category_id,shopify_id\nboots,aa-8\n", "labels.csv")
    listings = ("--listings", table(tmp_path, LISTINGS))
    code, line = fail(*listings, "--label-map", labels, "--label-column", "nosuch")
    assert (code, "labels.csv: no column nosuch" in line) == (3, True)
    labels = table(tmp_path, "category_id,shopify_id\na,aa-8\na,aa-9\n", "labels.csv")
    code, line = fail(*listings, "--label-map", labels)
    assert (code, "labels.csv, line 3: a line above gives 'a' another" in line) == (3, True)
    code, line = fail(*listings, "--slice-column", "brand")
    assert (code, "no column brand" in line) == (3, True)


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
