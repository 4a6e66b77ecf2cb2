"""Upkeep of an embedding store: few files, each photo once, and only what is still needed."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from jobs.stages.manifest import read_photos
from jobs.stages.store import folder_upkeep
from jobs.stages.store.folder import FolderStore
from schemas.embeddings import EMBEDDINGS, Signal
from schemas.manifest import MANIFEST
from tests.support.embedding_rows import (
    ONE,
    TWO,
    Upkeep,
    add_run,
    error_line,
    keys_of,
    runs_of,
    state,
    vector,
)
from tests.support.manifest_rows import WriteManifest, row

pytestmark = pytest.mark.spark


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
        "files_damaged": 0,
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
            ("k5", False, True, bytearray(vector("k5")), None),
            ("bad 2", True, True, None, "unreadable"),
            ("may change", False, False, bytearray(vector("may change")), None),
            ("transient", True, True, None, "not_found"),
            ("at an address", False, True, None, "unreadable"),
        ],
        "photo_key string, keyed_by_content boolean, storable boolean, vector binary, "
        "reject_reason string",
    )
    FolderStore(store, ONE).append(fresh)
    assert len(runs_of(store, ONE)) == 2
    upkeep()
    assert len(runs_of(store, ONE)) == 1
    assert keys_of(store, ONE) == ["bad 1", "bad 2", "k1", "k2", "k3", "k4", "k5"]
    stored = FolderStore(store, ONE).read(spark)
    assert stored is not None
    known = {r.photo_key: r for r in stored.collect()}
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
    monkeypatch.setattr(folder_upkeep, "_FILE_BYTES", 2000)
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


def test_the_last_signals_are_kept_and_read_by_who_made_them(
    upkeep: Upkeep, store: Path, spark: SparkSession
) -> None:
    def add(run: str, **columns: object) -> None:
        row = {"image_key": "k1", "backbone_digest": ONE, "vector": vector("k1"), **columns}
        folder = store / f"backbone={ONE}" / f"run={run}"
        folder.mkdir()
        pq.write_table(pa.Table.from_pylist([row], schema=EMBEDDINGS), folder / "part-0.parquet")

    def hashes(maker: str) -> dict[str, object]:
        return {"made_by": maker, "whole": b"w", "unframed": None, "quality": 90}

    add("c", hashes=hashes("z, the older"), added_at=datetime(2026, 1, 1, tzinfo=UTC))
    add("d", hashes=hashes("a, the newer"), added_at=datetime(2026, 2, 1, tzinfo=UTC))
    add("e", text={"made_by": "t", "lines": []}, added_at=datetime(2026, 3, 1, tzinfo=UTC))

    def complete(**wanted: str) -> dict[str, bool]:
        signals = {Signal(name): maker for name, maker in wanted.items()}
        found = FolderStore(store, ONE).read(spark, signals)
        assert found is not None
        return {row["photo_key"]: row["complete"] for row in found.collect()}

    none = {"k1": False, "k2": False, "k3": False, "k4": False, "bad 1": True}
    assert complete() == dict.fromkeys(none, True)
    assert complete(hashes="z, the older", text="t") == none | {"k1": True}
    upkeep()
    assert complete(hashes="a, the newer", text="t") == none | {"k1": True}
    assert complete(hashes="z, the older") == none
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
    write = folder_upkeep._write
    monkeypatch.setattr(
        folder_upkeep,
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
    tracking_uri: str,
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
    write_manifest(manifest, later, "2026-11-26/country=de", without_keys)
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

    run = MlflowClient(tracking_uri).get_run(report["run_id"])
    assert (run.info.run_name, run.info.status) == ("maintain_embeddings", "FINISHED")
    assert run.data.metrics[f"backbone_{ONE}.expired"] == 1
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.profile) == (str(manifest), '{"num_rows": 4}')

    # All of a backbone's photos may be gone, and that too is done once.
    upkeep(*expire, "2026-11-26")
    assert keys_of(store, ONE) == [last]
    assert keys_of(store, TWO) == []
    before = state(store)
    assert upkeep(*expire, "2026-11-26")[f"backbone={TWO}"]["rows_before"] == 0
    assert state(store) == before
    stored = FolderStore(store, TWO).read(spark)
    assert stored is not None
    assert stored.count() == 0


def test_a_day_without_photos_drops_nothing(
    upkeep: Upkeep,
    store: Path,
    write_manifest: WriteManifest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = write_manifest(tmp_path / "manifest", [row("a", image_bytes=b"a")], "2026-11-24")
    write_manifest(manifest, [], "2026-11-25")
    before = state(store)
    upkeep("--manifest", str(manifest), "--keep-since", "2027-01-01", code=2)
    assert "--keep-since 2027-01-01: " in error_line(capsys)
    upkeep("--manifest", str(manifest), "--keep-since", "2026-11-24", code=3)
    assert "ds=2026-11-25: the manifest has no row there" in error_line(capsys)
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
    assert "part-0.parquet is not a partition ds=YYYY-MM-DD" in error_line(capsys)
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
