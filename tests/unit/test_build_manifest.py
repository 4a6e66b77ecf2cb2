"""The manifest job: a folder of photos, with or without a table, becomes a partition."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from jobs.build_manifest import main
from jobs.publish import hold_partition
from schemas.manifest import MANIFEST, check_manifest

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


@pytest.fixture(autouse=True, scope="module")
def _database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
        yield


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
    """Runs the job that must fail; returns its exit code and its line."""

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
    (images / "shoes/A.JPG").write_bytes(b"not an image, which is for the main job to find")
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
    """So that the main job reports it, and finds it should it come."""
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
    text = "listing_id,path\n" + "".join(f"L{i},{i}.jpg\n" for i in range(2001))
    rows = build("--listings", table(tmp_path, text))
    assert columns(rows, "listing_id") == [(f"L{i}",) for i in range(2001)]


def test_label_map(build: Callable[..., Rows], tmp_path: Path) -> None:
    labels = table(tmp_path, "category_id,shopify_id,mine\nboots,aa-8,b\ncaps,,c\n", "labels.csv")
    listings = ("--listings", table(tmp_path, LISTINGS))
    rows = build(*listings, "--label-map", labels)
    assert columns(rows, "category_id") == [("aa-8",), ("aa-8",), (None,), (None,)]
    rows = build(*listings, "--label-map", labels, "--label-column", "mine")
    assert columns(rows, "category_id") == [("b",), ("b",), ("c",), (None,)]


# Repetition


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
        ("listing_id,path\nL1\n", "listings.csv, line 2: listing_id or path is empty"),
        ("listing_id,path,image_index\nL1,a.jpg,first\n", "line 2: image_index 'first'"),
        ("listing_id,path,image_index\nL1,a.jpg,-1\n", "line 2: image_index '-1'"),
        ("listing_id,path,image_index\nL1,a.jpg,3000000000\n", "line 2: image_index '3000000000'"),
        (f"listing_id,path,image_index\nL1,a.jpg,{'9' * 5000}\n", "line 2: image_index '999"),
        (b"listing_id,path\nL1,caf\xe9.jpg\n", "listings.csv: not UTF-8"),
        (f"listing_id,path\nL1,{'x' * 200_000}\n", "listings.csv, after line 1: field larger"),
        ("listing_id,path\n", "listings.csv: no photo"),
    ],
)
def test_bad_tables_are_3(
    fail: Callable[..., tuple[int, str]], tmp_path: Path, text: str | bytes, message: str
) -> None:
    code, line = fail("--listings", table(tmp_path, text))
    assert code == 3
    assert message in line


def test_no_photos_are_3(
    fail: Callable[..., tuple[int, str]], images: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    code, line = fail("--images", str(tmp_path / "empty"))
    assert (code, "empty: no photo" in line) == (3, True)
    code, line = fail("--listings", table(tmp_path, LISTINGS), "--split", "tset")
    assert (code, "no photo in the splits tset" in line) == (3, True)


def test_a_label_map_without_its_column_is_3(
    fail: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    labels = table(tmp_path, "category_id,shopify_id\nboots,aa-8\n", "labels.csv")
    code, line = fail("--label-map", labels, "--label-column", "nosuch")
    assert (code, "labels.csv: no column nosuch" in line) == (3, True)


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
def test_what_is_not_there_is_2(
    fail: Callable[..., tuple[int, str]], tmp_path: Path, flag: str, name: str
) -> None:
    code, line = fail(flag, str(tmp_path / name))
    assert code == 2
    assert str(tmp_path / name) in line
