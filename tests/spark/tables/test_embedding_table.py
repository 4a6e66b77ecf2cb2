"""The embedding store in a table: what it keeps, who reads which files, and its upkeep."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs import maintain_embeddings
from jobs.command.folders import LocalFolder
from jobs.command.locations import Table
from jobs.stages.store.table import TableStore
from tests.spark.tables.conftest import Lake, iceberg_alone
from tests.support.embedding_rows import ONE, TWO, error_line, vector
from tests.support.manifest_rows import DS, row

pytestmark = [pytest.mark.spark, pytest.mark.lake]

Upkeep = Callable[..., dict[str, Any]]


@pytest.fixture
def store(lake: Lake, tmp_path: Path) -> TableStore:
    """Two backbones, of which one has a key twice."""
    for digest, keys in ((ONE, ["k1", "k2"]), (ONE, ["k2", "bad 1"]), (TWO, ["k1", "k3"])):
        add(lake, tmp_path, digest, keys)
    return open_store(lake, tmp_path, ONE)


def open_store(lake: Lake, folder: Path, digest: str) -> TableStore:
    return TableStore(Table(lake.flag("embeddings")), digest, LocalFolder(folder))


def photos(lake: Lake, keys: list[str]) -> DataFrame:
    """What a run has embedded."""
    found = {key: (None, "unreadable") if "bad" in key else (vector(key), None) for key in keys}
    rows = [(key, True, True, *found[key]) for key in keys]
    columns = (
        "photo_key string, keyed_by_content boolean, storable boolean, vector binary, "
        "reject_reason string"
    )
    return lake.spark.createDataFrame(rows, columns)


def add(lake: Lake, folder: Path, digest: str, keys: list[str]) -> None:
    open_store(lake, folder, digest).append(photos(lake, keys))


@pytest.fixture
def upkeep(lake: Lake, tracking_uri: str, tmp_path: Path) -> Upkeep:
    def run(*flags: str, code: int = 0) -> dict[str, Any]:
        report = tmp_path / "report.json"
        argv = ["--embeddings", lake.flag("embeddings"), "--report", str(report)]
        assert maintain_embeddings.main([*argv, "--tracking-uri", tracking_uri, *flags]) == code
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 else {}

    return run


def test_a_backbone_has_its_own_embeddings_and_files(lake: Lake, store: TableStore) -> None:
    found = store.read(lake.spark)
    assert found is not None
    assert {r.photo_key: r.vector for r in found.collect()} == {
        "k1": bytearray(vector("k1")),
        "k2": bytearray(vector("k2")),
        "bad 1": None,
    }
    rows = store.rows(lake.spark)
    assert rows is not None
    plan = rows.select("image_key")._jdf.queryExecution().executedPlan()
    read = rows.select(F.input_file_name().alias("file")).distinct().count()
    everything = lake.spark.table(lake.flag("embeddings").removeprefix("table:"))
    assert read < everything.select(F.input_file_name()).distinct().count()
    assert "backbone_digest" in plan.toString()


@iceberg_alone
def test_what_a_killed_run_has_embedded_is_added_once(
    lake: Lake, store: TableStore, tmp_path: Path
) -> None:
    ended, at_work = open_store(lake, tmp_path, ONE), open_store(lake, tmp_path, ONE)
    for each, keys in ((ended, ["k1", "k9"]), (at_work, ["k8"])):
        folder = each.new_pending(LocalFolder(tmp_path / "scratch"))
        photos(lake, keys).write.mode("append").parquet(folder.uri)
    ended.close()
    for recovered in (1, 0):
        after = open_store(lake, tmp_path, ONE)
        after.recover(lake.spark)
        assert after.recovered == recovered
    found = store.read(lake.spark)
    assert found is not None
    assert {row.photo_key for row in found.collect()} == {"k1", "k2", "k9", "bad 1"}
    at_work.close()
    after.recover(lake.spark)
    assert after.recovered == 1


def test_upkeep_drops_expires_and_merges(
    lake: Lake, store: TableStore, upkeep: Upkeep, tmp_path: Path
) -> None:
    figures = upkeep()
    assert figures[f"backbone={ONE}"] == {"rows_before": 4, "rows_after": 4, "duplicates": 1}
    assert figures["files_merged"] >= figures["files_added"]

    rows = [row(key, image_uri="/photo", image_key=key) for key in ("k2", "k3")]
    manifest = lake.write_manifest(rows)
    figures = upkeep("--manifest", manifest, "--keep-since", DS, "--drop-backbone", TWO)
    assert figures["dropped"] == [TWO]
    assert figures[f"backbone={ONE}"] == {"rows_before": 4, "rows_after": 2, "duplicates": 1}
    assert lake.sql("SELECT DISTINCT backbone_digest, image_key FROM {embeddings}") == [(ONE, "k2")]


@iceberg_alone
def test_upkeep_says_what_is_not_there(
    lake: Lake, upkeep: Upkeep, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    upkeep(code=2)
    assert f"--embeddings {lake.flag('embeddings')}: no such table" in error_line(capsys)
    add(lake, tmp_path, ONE, ["k1"])
    upkeep("--drop-backbone", TWO, code=2)
    assert f"--drop-backbone {TWO}: {lake.flag('embeddings')} has {ONE}" in error_line(capsys)
