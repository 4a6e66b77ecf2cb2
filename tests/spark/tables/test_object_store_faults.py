"""The object store or the catalog fails during the daily job: nothing lost, doubled or mixed."""

import itertools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pyspark.sql import SparkSession

from scripts.object_store import ObjectStore
from tests.spark.tables.conftest import use_store
from tests.support.embedding_rows import error_line
from tests.support.faulty_proxy import DROP, LOSE, OK, Fate, FaultyProxy
from tests.support.manifest_rows import Categorize, DrawPhoto, Rows, WriteManifest, row

pytestmark = [pytest.mark.spark, pytest.mark.lake, pytest.mark.slow]

LISTINGS = 6


class Faulty(NamedTuple):
    """A catalog on an object store, each behind a proxy."""

    s3: FaultyProxy
    catalog: FaultyProxy
    namespace: str

    @property
    def output(self) -> str:
        return f"table:{self.namespace}.categories"


@pytest.fixture(scope="module")
def proxies(store: ObjectStore) -> Iterator[tuple[FaultyProxy, FaultyProxy]]:
    s3, catalog = FaultyProxy(store.s3), FaultyProxy(store.catalog)
    with s3.serving(), catalog.serving():
        yield s3, catalog


@pytest.fixture(scope="module")
def catalog_name(
    spark: SparkSession, store: ObjectStore, proxies: tuple[FaultyProxy, FaultyProxy]
) -> str:
    behind = store._replace(s3=proxies[0].address, catalog=proxies[1].address)
    # Pauses between retries are shorter than by default.
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    hadoop.set("fs.s3a.retry.interval", "50ms")
    hadoop.set("fs.s3a.attempts.maximum", "4")
    hadoop.set("fs.s3a.retry.limit", "2")
    use_store(spark, behind, "faulty")
    return "faulty"


@pytest.fixture
def faulty(catalog_name: str, proxies: tuple[FaultyProxy, FaultyProxy]) -> Iterator[Faulty]:
    yield Faulty(*proxies, f"{catalog_name}.n{uuid.uuid4().hex[:8]}")
    for proxy in proxies:
        proxy.reset()


@pytest.fixture(scope="module")
def rows(draw_photo: DrawPhoto) -> Rows:
    return [row(f"listing {i}", image_bytes=draw_photo("warm/red", i)) for i in range(LISTINGS)]


@pytest.fixture
def run(
    faulty: Faulty,
    rows: Rows,
    write_manifest: WriteManifest,
    categorize: Categorize,
    tmp_path: Path,
) -> Callable[..., dict[str, Any]]:
    manifest = write_manifest(tmp_path / "manifest", rows)

    def run(code: int = 0) -> dict[str, Any]:
        embeddings = ["--embeddings", f"table:{faulty.namespace}.embeddings"]
        scratch = ["--scratch", "s3a://scratch/runs"]
        return categorize(manifest, faulty.output, *embeddings, *scratch, code=code)

    return run


def runs_seen(spark: SparkSession, faulty: Faulty) -> dict[str, int]:
    spark.sql(f"REFRESH TABLE {faulty.namespace}.categories")
    counts = spark.table(f"{faulty.namespace}.categories").groupBy("run_id").count().collect()
    return {row["run_id"]: row["count"] for row in counts}


def commits(spark: SparkSession, faulty: Faulty, run_id: str) -> int:
    """How many commits to the categories a run has made."""
    rows = spark.sql(f"SELECT summary FROM {faulty.namespace}.categories.snapshots").collect()
    return sum(row["summary"].get("seer.run-id") == run_id for row in rows)


def is_commit(method: str, path: str) -> bool:
    return method == "POST" and path.endswith("/tables/categories")


@pytest.mark.parametrize("status", [500, 503])
def test_an_object_store_that_fails_now_and_then_is_asked_again(
    spark: SparkSession, faulty: Faulty, run: Callable[..., dict[str, Any]], status: int
) -> None:
    numbers = itertools.count(1)
    faulty.s3.fate = lambda method, path: status if next(numbers) % 5 == 0 else OK
    report = run()
    assert runs_seen(spark, faulty) == {report["run_id"]: LISTINGS}
    assert sum(fate == status for *_, fate in faulty.s3.seen) > 5


def test_a_slow_object_store_is_waited_for(
    spark: SparkSession, faulty: Faulty, run: Callable[..., dict[str, Any]]
) -> None:
    faulty.s3.delay = 0.1
    report = run()
    assert runs_seen(spark, faulty) == {report["run_id"]: LISTINGS}


def test_a_commit_whose_answer_is_lost_is_made_once(
    spark: SparkSession, faulty: Faulty, run: Callable[..., dict[str, Any]]
) -> None:
    before = run()
    numbers = itertools.count(1)

    def lose_the_first(method: str, path: str) -> Fate:
        return LOSE if is_commit(method, path) and next(numbers) == 1 else OK

    faulty.catalog.fate = lose_the_first
    report = run()
    assert [fate for *_, fate in faulty.catalog.seen if fate != OK] == [LOSE]
    assert runs_seen(spark, faulty) == {report["run_id"]: LISTINGS}
    assert commits(spark, faulty, report["run_id"]) == commits(spark, faulty, before["run_id"]) == 1


@pytest.mark.parametrize("ill", ["s3", "catalog"])
def test_a_store_that_is_gone_fails_the_run_and_leaves_what_was_published(
    spark: SparkSession,
    faulty: Faulty,
    run: Callable[..., dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    ill: str,
) -> None:
    before = run()
    proxy = faulty.s3 if ill == "s3" else faulty.catalog
    gone = False

    def gone_once_staged(method: str, path: str) -> Fate:
        nonlocal gone
        gone = gone or "/staged/_SUCCESS" in path or is_commit(method, path)
        return DROP if gone else OK

    proxy.fate = gone_once_staged
    run(code=1)
    assert "object store or a catalog does not answer as it should (" in error_line(capsys)
    proxy.reset()
    assert runs_seen(spark, faulty) == {before["run_id"]: LISTINGS}
    after = run()
    assert runs_seen(spark, faulty) == {after["run_id"]: LISTINGS}
