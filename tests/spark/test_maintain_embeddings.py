"""Upkeep of an embedding store: few files, nothing that is needed lost, whenever it dies."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from jobs import maintain_embeddings
from jobs.embedding_store import append_to_store, hold_store, read_store
from jobs.manifest import read_photos
from schemas.embeddings import EMBEDDINGS, check_embeddings
from schemas.errors import PartitionBusy, SettingsError
from schemas.manifest import MANIFEST
from tests.spark.manifest_rows import WriteManifest, row

pytestmark = pytest.mark.spark

ROOT = Path(__file__).parents[2]
WIDTH = 4
ONE, TWO = "1" * 64, "2" * 64

Upkeep = Callable[..., dict[str, Any]]


def vector(key: str) -> bytes:
    return np.frombuffer(sha256(key.encode()).digest()[:WIDTH], "u1").astype("<f2").tobytes()


def add_run(store: Path, digest: str, run: str, files: Iterable[Iterable[str]]) -> None:
    """A run with a file for each group of keys; `bad …` has a reason and no vector."""
    folder = store / f"backbone={digest}" / f"run={run}"
    folder.mkdir(parents=True)
    for number, keys in enumerate(files):
        rows = [
            {
                "image_key": key,
                "backbone_digest": digest,
                "vector": None if key.startswith("bad ") else vector(key),
                "reject_reason": "unreadable" if key.startswith("bad ") else None,
            }
            for key in keys
        ]
        table = pa.Table.from_pylist(rows, schema=EMBEDDINGS)
        pq.write_table(table, folder / f"part-{number}.parquet")


def keys_of(store: Path, digest: str) -> list[str]:
    """The keys of a backbone, as often as they are there, after a check of their rows."""
    table = pq.read_table(store / f"backbone={digest}", partitioning=None)
    check_embeddings(table, WIDTH, str(store))
    assert set(table["backbone_digest"].to_pylist()) <= {digest}
    for found in table.to_pylist():
        key = found["image_key"]
        assert found["vector"] == (None if key.startswith("bad ") else vector(key))
    return sorted(table["image_key"].to_pylist())


def runs_of(store: Path, digest: str) -> list[str]:
    return sorted(path.name for path in (store / f"backbone={digest}").iterdir())


def state(store: Path) -> dict[Path, int]:
    """Every file but the lock, with when it was written."""
    files = [path for path in store.rglob("*") if path.is_file() and path.name != "_lock"]
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two backbones: one with keys twice, in a run and across runs, one that needs no upkeep."""
    store = tmp_path / "store"
    add_run(store, ONE, "a", [["k1", "k2", "k1"], ["k3"]])
    add_run(store, ONE, "b", [["k2", "k4"], ["bad 1"]])
    add_run(store, TWO, "a", [["k1", "k2"]])
    return store


@pytest.fixture
def upkeep(spark: SparkSession, store: Path, tmp_path: Path) -> Upkeep:
    """Runs the job in this process and gives its report; `code` is the exit code expected."""

    def run(*flags: str, code: int = 0) -> dict[str, Any]:
        report = tmp_path / "report.json"
        report.unlink(missing_ok=True)
        argv = ["--embeddings", str(store), "--report", str(report), *flags]
        assert maintain_embeddings.main(argv) == code
        assert report.exists() == (code == 0)
        assert not list(store.glob("_scratch-*"))
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 else {}

    return run


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    return line


# Compacting


def test_every_key_is_kept_once(upkeep: Upkeep, store: Path) -> None:
    untouched = state(store / f"backbone={TWO}")
    report = upkeep()
    assert keys_of(store, ONE) == ["bad 1", "k1", "k2", "k3", "k4"]
    figures = report[f"backbone={ONE}"]
    assert figures.pop("seconds") >= 0
    assert figures.pop("bytes_before") > 0
    written = (store / f"backbone={ONE}").glob("run=*/*.parquet")
    assert figures.pop("bytes_after") == sum(path.stat().st_size for path in written)
    assert figures == {
        "rows_before": 7,
        "duplicates": 2,
        "expired": 0,
        "rows_after": 5,
        "files_before": 4,
        "files_after": 1,
    }
    assert len(runs_of(store, ONE)) == 1
    assert state(store / f"backbone={TWO}") == untouched
    assert keys_of(store, TWO) == ["k1", "k2"]

    before = state(store)
    again = upkeep()[f"backbone={ONE}"]
    assert state(store) == before
    assert (again["rows_before"], again["rows_after"], again["duplicates"]) == (5, 5, 0)


def test_what_is_added_later_is_gathered_too(
    upkeep: Upkeep, store: Path, spark: SparkSession
) -> None:
    upkeep()
    fresh = spark.createDataFrame(
        [
            ("k5", True, bytearray(vector("k5")), None),
            ("bad 2", True, None, "unreadable"),
            ("may change", False, bytearray(vector("may change")), None),
            ("transient", True, None, "not_found"),
        ],
        "photo_key string, storable boolean, vector binary, reject_reason string",
    )
    append_to_store(fresh, store, ONE)
    assert len(runs_of(store, ONE)) == 2
    upkeep()
    assert len(runs_of(store, ONE)) == 1
    assert keys_of(store, ONE) == ["bad 1", "bad 2", "k1", "k2", "k3", "k4", "k5"]
    known = {r.photo_key: r for r in read_store(spark, store, ONE).collect()}
    assert sorted(known) == keys_of(store, ONE)
    assert bytes(known["k5"].vector) == vector("k5")
    assert known["bad 2"].reject_reason == "unreadable"


def test_one_run_of_many_small_files_becomes_few(upkeep: Upkeep, store: Path) -> None:
    three = "3" * 64
    add_run(store, three, "a", [["k1"], ["k2"], ["k3"]])
    figures = upkeep()[f"backbone={three}"]
    assert (figures["files_before"], figures["files_after"]) == (3, 1)
    assert keys_of(store, three) == ["k1", "k2", "k3"]


def test_files_are_as_many_as_the_bytes_need(
    upkeep: Upkeep, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintain_embeddings, "_FILE_BYTES", 2000)
    add_run(store, ONE, "c", [[f"many {i}" for i in range(500)]])
    figures = upkeep()[f"backbone={ONE}"]
    expected = -(-figures["bytes_before"] * 505 // 507 // 2000)
    assert figures["files_after"] == expected > 3
    assert len(keys_of(store, ONE)) == figures["rows_after"] == 505


def test_a_vector_is_kept_rather_than_a_reason(upkeep: Upkeep, store: Path) -> None:
    rows = [{"image_key": "k1", "backbone_digest": ONE, "reject_reason": "unreadable"}]
    folder = store / f"backbone={ONE}" / "run=c"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=EMBEDDINGS), folder / "part-0.parquet")
    upkeep()
    assert keys_of(store, ONE) == ["bad 1", "k1", "k2", "k3", "k4"]


def test_what_dead_runs_left_is_cleared_away(upkeep: Upkeep, store: Path) -> None:
    (store / "_scratch-dead" / "model").mkdir(parents=True)
    unfinished = store / f"backbone={TWO}" / "run=dead" / "_temporary" / "0"
    unfinished.mkdir(parents=True)
    (unfinished / "part-0.parquet").write_bytes(b"half")
    before = state(store / f"backbone={TWO}" / "run=a")
    assert upkeep()["leftovers_removed"] == 2
    assert runs_of(store, TWO) == ["run=a"]
    assert state(store / f"backbone={TWO}") == before


def test_rows_of_another_backbone_are_3(
    upkeep: Upkeep, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store / f"backbone={TWO}" / "run=a").rename(store / f"backbone={ONE}" / "run=c")
    before = state(store)
    upkeep(code=3)
    assert "2 rows without an image_key or with another backbone_digest" in error_line(capsys)
    assert state(store) == before


def test_rows_lost_on_the_way_are_3(
    upkeep: Upkeep,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write = maintain_embeddings._write
    monkeypatch.setattr(
        maintain_embeddings,
        "_write",
        lambda rows, *rest: write(rows.where("image_key != 'k3'"), *rest),
    )
    before = state(store)
    upkeep(code=3)
    assert "5 rows to keep, but 4 written" in error_line(capsys)
    assert state(store) == before


# Dropping


def test_photos_that_no_recent_partition_has_are_dropped(
    upkeep: Upkeep,
    store: Path,
    spark: SparkSession,
    write_manifest: WriteManifest,
    tmp_path: Path,
) -> None:
    old = [row("old", image_uri="a.jpg", image_key="k1"), row("both", image_bytes=b"both")]
    recent = [
        row("given", image_uri="b.jpg", image_key="k2"),
        row("both", image_bytes=b"both"),
        row("dated", image_uri="c.jpg", updated_at=datetime(2026, 11, 1, tzinfo=UTC)),
    ]
    later = [row("without the column", image_bytes=b"later")]
    manifest = write_manifest(tmp_path / "a manifest", old, "2026-11-24")
    write_manifest(manifest, recent, "2026-11-25")
    without_keys = MANIFEST.remove(MANIFEST.get_field_index("image_key"))
    write_manifest(manifest, later, "2026-11-26", without_keys)
    photos = read_photos(spark, str(manifest), "2026-11-25").collect()
    (dated,) = [photo.photo_key for photo in photos if photo.listing_id == "dated"]
    both, last = (sha256(data).hexdigest() for data in (b"both", b"later"))
    add_run(store, ONE, "c", [[both, dated, last, "gone"]])

    expire = ["--manifest", str(manifest), "--keep-since"]
    report = upkeep(*expire, "2026-11-24")
    assert keys_of(store, ONE) == sorted(["k1", "k2", both, dated, last])
    assert keys_of(store, TWO) == ["k1", "k2"]
    report = upkeep(*expire, "2026-11-25")
    assert keys_of(store, ONE) == sorted(["k2", both, dated, last])
    assert report[f"backbone={ONE}"]["expired"] == report[f"backbone={TWO}"]["expired"] == 1
    assert keys_of(store, TWO) == ["k2"]

    # All of a backbone's photos may be gone, and that too is done once.
    upkeep(*expire, "2026-11-26")
    assert keys_of(store, ONE) == [last]
    assert keys_of(store, TWO) == []
    before = state(store)
    assert upkeep(*expire, "2026-11-26")[f"backbone={TWO}"]["rows_before"] == 0
    assert state(store) == before
    assert read_store(spark, store, TWO).count() == 0


def test_a_day_without_photos_is_2_and_drops_nothing(
    upkeep: Upkeep,
    store: Path,
    write_manifest: WriteManifest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = write_manifest(tmp_path / "manifest", [row("a", image_bytes=b"a")], "2026-11-24")
    write_manifest(manifest, [], "2026-11-25")
    before = state(store)
    for day in ("2026-11-25", "2027-01-01"):
        upkeep("--manifest", str(manifest), "--keep-since", day, code=2)
        assert f"--keep-since {day}: " in error_line(capsys)
    upkeep("--manifest", str(tmp_path / "none"), "--keep-since", "2026-11-24", code=3)
    assert "none: no such manifest" in error_line(capsys)
    assert state(store) == before


def test_a_manifest_without_days_is_3(
    upkeep: Upkeep, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "manifest"
    manifest.mkdir()
    table = pa.Table.from_pylist([row("a", image_bytes=b"a")], schema=MANIFEST)
    pq.write_table(table, manifest / "part-0.parquet")
    before = state(store)
    upkeep("--manifest", str(manifest), "--keep-since", "2026-11-24", code=3)
    assert "manifest is no partition ds=YYYY-MM-DD" in error_line(capsys)
    assert state(store) == before


def test_a_backbone_is_dropped(
    upkeep: Upkeep, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(store)
    upkeep("--drop-backbone", TWO, "--drop-backbone", "3", code=2)
    assert error_line(capsys).endswith(f"--drop-backbone 3: {store} has {ONE}, {TWO}")
    assert state(store) == before
    report = upkeep("--drop-backbone", TWO)
    assert report["dropped"] == [TWO]
    assert f"backbone={TWO}" not in report
    assert [path.name for path in store.glob("backbone=*")] == [f"backbone={ONE}"]
    assert keys_of(store, ONE) == ["bad 1", "k1", "k2", "k3", "k4"]


# Two runs at once


def test_upkeep_waits_for_no_one_and_lets_no_one_in(
    upkeep: Upkeep, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with hold_store(store, exclusive=False), hold_store(store, exclusive=False):
        upkeep(code=5)
    assert f"{store} is used by another run" in error_line(capsys)
    with hold_store(store, exclusive=True):
        upkeep(code=5)
        with (
            pytest.raises(PartitionBusy, match=f"in upkeep by process {os.getpid()} on ") as caught,
            hold_store(store, exclusive=False),
        ):
            raise AssertionError
    assert caught.value.exit_code == 5
    with hold_store(store, exclusive=False):
        pass


def test_a_store_is_made_for_who_adds_to_it_alone(tmp_path: Path) -> None:
    store = tmp_path / "deep" / "store"
    with pytest.raises(SettingsError, match=r"--embeddings .*store: No such file"):
        hold_store(store, exclusive=True).__enter__()
    with hold_store(store, exclusive=False):
        assert store.is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"--embeddings .*file: "):
        hold_store(tmp_path / "file", exclusive=False).__enter__()
    with hold_store(None, exclusive=False):
        pass


# Dying

DIES = """
import os, shutil, signal, sys
from pathlib import Path
from pyspark.sql import DataFrameWriter
from jobs import maintain_embeddings

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def rename_and_die(path, target, rename=Path.rename):
    rename(path, target)
    die()

def write_and_die(writer, uri, write=DataFrameWriter.parquet):
    write(writer, uri)
    die()

def remove_half_and_die(path, remove=shutil.rmtree, **options):
    for file in sorted(Path(path).rglob("*.parquet")):
        file.unlink()
        die()
    remove(path, **options)

{patch}
sys.exit(maintain_embeddings.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patch", "flags", "runs"),
    [
        ("DataFrameWriter.parquet = die", (), 2),
        ("DataFrameWriter.parquet = write_and_die", (), 2),
        ("Path.rename = die", (), 2),
        ("Path.rename = rename_and_die", (), 3),
        ("shutil.rmtree = remove_half_and_die", (), 3),
        ("shutil.rmtree = remove_half_and_die", ("--drop-backbone", TWO), 2),
    ],
    ids=["before writing", "written", "checked", "renamed", "removing", "dropping"],
)
def test_a_run_that_is_killed_loses_nothing(
    upkeep: Upkeep,
    store: Path,
    spark: SparkSession,
    patch: str,
    flags: tuple[str, ...],
    runs: int,
) -> None:
    # The session of these tests must not be taken for that of a spark-submit.
    env = {name: value for name, value in os.environ.items() if name != "PYSPARK_GATEWAY_PORT"}
    done = subprocess.run(
        [sys.executable, "-c", DIES.format(patch=patch), "--embeddings", store, *flags],
        env=env | {"PYTHONPATH": str(ROOT), "MASTER": "local[2]"},
        check=False,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL
    assert len(list(store.glob("_scratch-*"))) == 1
    assert len(runs_of(store, ONE)) == runs
    kept = ["bad 1", "k1", "k2", "k3", "k4"]
    assert sorted(set(keys_of(store, ONE))) == kept
    assert sorted(r.photo_key for r in read_store(spark, store, ONE).collect()) == kept
    assert (store / f"backbone={TWO}").exists() == (not flags)

    assert upkeep()["leftovers_removed"] == 1
    assert keys_of(store, ONE) == kept
    assert len(runs_of(store, ONE)) == 1


# Arguments


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert maintain_embeddings.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for flag in ("--embeddings", "--manifest", "--keep-since", "--drop-backbone", "--report"):
        assert flag in shown


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "--embeddings is required"),
        (["--embeddings", "nowhere"], "--embeddings nowhere: No such file or directory"),
        (["--embeddings", ".", "--manifest", "m"], "give both or neither"),
        (["--embeddings", ".", "--keep-since", "2026-11-25"], "give both or neither"),
        (["--embeddings", ".", "--manifest", "m", "--keep-since", "soon"], "--keep-since: "),
        (["--embeddings", ".", "--drop-backbone", "3"], "--drop-backbone 3: . has no backbone"),
    ],
)
def test_bad_arguments_are_2(
    flags: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert maintain_embeddings.main(flags) == 2
    assert line in error_line(capsys)
