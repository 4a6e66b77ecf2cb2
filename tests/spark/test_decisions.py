"""What people decided: added once however often, the newest counts, and it wins over a manifest."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from jobs.command.locks import take_lock
from jobs.stages.decisions import (
    add_decisions,
    join_decisions,
    newest_decisions,
    read_decisions,
    with_reviewed,
)
from jobs.stages.labels import choose_labelled
from jobs.stages.manifest import read_days, read_photos
from schemas.errors import DataContractError, PartitionBusy
from tests.support.decisions import NOON, as_table, decision
from tests.support.manifest_rows import WriteManifest, row

pytestmark = pytest.mark.spark

HOUR = timedelta(hours=1)
Decide = Callable[..., int]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return tmp_path / "labels"


@pytest.fixture
def decide(spark: SparkSession, labels: Path) -> Decide:
    def add(*rows: dict[str, Any], run: str = "run 1") -> int:
        return add_decisions(spark, labels, as_table(*rows), run)

    return add


def newest(spark: SparkSession, labels: Path, at: datetime = NOON) -> dict[str, tuple[Any, Any]]:
    found = newest_decisions(read_decisions(spark, labels), "category", at)
    columns = ("listing_id", "decision", "category_id")
    return {name: (what, category) for name, what, category in found.select(*columns).collect()}


def test_a_decision_is_added_once(spark: SparkSession, labels: Path, decide: Decide) -> None:
    first = [decision("a"), decision("b", "unsure"), decision("a")]
    assert decide(*first) == 2
    assert decide(*first, decision("c", reason="it says so"), run="run 2") == 1
    assert decide(*first, run="run 3") == 0
    assert len(list(labels.glob("*.parquet"))) == 2
    rows = read_decisions(spark, labels).select("listing_id", "run_id").collect()
    assert sorted(map(tuple, rows)) == [("a", "run 1"), ("b", "run 1"), ("c", "run 2")]


def test_the_newest_decision_counts(spark: SparkSession, labels: Path, decide: Decide) -> None:
    decide(
        decision("changed"),
        decision("changed", category_id="boots", decided_at=NOON + HOUR, reviewer="grace"),
        decision("withdrawn", decided_at=NOON - HOUR),
        decision("withdrawn", "bad_photo"),
        decision("other task", task="screening", what="violation"),
        decision("ruled", category_id="boots"),
        decision("ruled", source="rule", decided_at=NOON + HOUR, expires_at=NOON + 2 * HOUR),
    )
    assert newest(spark, labels, NOON) == {
        "changed": ("category", "boots"),
        "withdrawn": ("bad_photo", None),
        "ruled": ("category", "caps"),
    }
    assert newest(spark, labels, NOON + 2 * HOUR)["ruled"] == ("category", "boots")


def test_of_two_at_once_it_is_always_the_same(
    spark: SparkSession, labels: Path, decide: Decide
) -> None:
    decide(decision("a", reviewer="grace", category_id="boots"))
    decide(decision("a"))
    assert newest(spark, labels) == {"a": ("category", "boots")}


def test_no_decision_yet(
    spark: SparkSession, labels: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert newest(spark, labels) == {}
    assert "there is no decision yet" in caplog.text


def test_files_of_others(spark: SparkSession, labels: Path) -> None:
    """Columns that may be null may be absent; another type is refused."""
    labels.mkdir()
    table = pa.Table.from_pylist([decision("a")])
    pq.write_table(table, labels / "theirs.parquet")
    assert newest(spark, labels) == {"a": ("category", "caps")}
    decided_at = table.schema.get_field_index("decided_at")
    text = table.set_column(decided_at, "decided_at", pa.array(["today"]))
    pq.write_table(text, labels / "theirs.parquet")
    with pytest.raises(DataContractError, match="column decided_at is string"):
        read_decisions(spark, labels)


def test_what_was_chosen_is_learned_from_and_not_calibrated_on(
    spark: SparkSession,
    labels: Path,
    decide: Decide,
    write_manifest: WriteManifest,
    tmp_path: Path,
) -> None:
    splits = {"instructive": None, "audit": "train", "random": None, "imported": None}
    splits |= {"of test": "test", "not asked": None}
    rows = [
        row(name, split=split, category_id="caps", image_bytes=name.encode())
        for name, split in splits.items()
    ]
    photos = read_photos(spark, str(write_manifest(tmp_path / "manifest", rows)))
    decide(
        *(decision(name, selection=name) for name in ("instructive", "audit", "random")),
        decision("imported"),
        decision("of test", selection="instructive"),
    )
    decided = newest_decisions(read_decisions(spark, labels), "category", NOON)
    labelled = choose_labelled(photos, decided)
    found = dict(map(tuple, labelled.photos.select("listing_id", "split").collect()))
    assert found == {
        "instructive": "chosen",
        "audit": "chosen",
        "random": "train",
        "imported": "train",
        "of test": "test",
        "not asked": "train",
    }
    assert labelled.figures["labelled_listings"] == {"chosen": 2, "test": 1, "train": 3}


def test_a_wrong_decision_is_refused_whole(labels: Path, decide: Decide) -> None:
    with pytest.raises(DataContractError, match="null for others"):
        decide(decision("a"), decision("b", "unsure", category_id="caps"))
    assert not labels.exists()


def test_another_run_adds(labels: Path, decide: Decide) -> None:
    labels.mkdir()
    with (
        take_lock(labels / "_lock", "labels", "run 7"),
        pytest.raises(PartitionBusy, match="run 7"),
    ):
        decide(decision("a"))


def test_decisions_win_over_the_labels_of_a_manifest(
    spark: SparkSession,
    labels: Path,
    decide: Decide,
    write_manifest: WriteManifest,
    tmp_path: Path,
) -> None:
    before = {"added": None, "changed": "boots", "confirmed": "caps", "unsure": "boots"}
    before |= {"withdrawn": "boots", "never had one": None, "untouched": "boots"}
    rows = [
        row(name, index, category_id=label, image_bytes=f"{name} {index}".encode())
        for name, label in before.items()
        for index in range(2)
    ]
    photos = read_photos(spark, str(write_manifest(tmp_path / "manifest", rows)))
    decide(
        *(decision(name) for name in ("added", "changed", "confirmed", "elsewhere")),
        decision("unsure", "unsure"),
        decision("withdrawn", "not_in_taxonomy"),
        decision("never had one", "violation"),
    )
    decided = newest_decisions(read_decisions(spark, labels), "category", NOON)
    joined, figures = join_decisions(photos, decided)
    assert joined.columns == photos.columns
    found = joined.select("listing_id", "category_id").collect()
    assert sorted(map(tuple, found), key=str) == sorted(
        [
            (name, label)
            for name, label in (
                before | {"added": "caps", "changed": "caps", "withdrawn": None}
            ).items()
            for _ in range(2)
        ],
        key=str,
    )
    assert figures == {
        "labels_added": 1,
        "labels_changed": 1,
        "labels_confirmed": 1,
        "labels_withdrawn": 1,
        "labels_without_photos": 1,
    }


def test_decided_listings_of_the_daily_manifest_are_learned_from(
    spark: SparkSession,
    labels: Path,
    decide: Decide,
    write_manifest: WriteManifest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A photo that came on two days once; nothing of a label or split that the rows have."""
    labelled = write_manifest(
        tmp_path / "labelled", [row("both", image_bytes=b"1", category_id="boots")]
    )
    daily = tmp_path / "daily"
    again = row("decided", 0, image_bytes=b"2", category_id="wrong", split="new")
    write_manifest(daily, [again, row("both", image_bytes=b"3")], "2026-11-24")
    write_manifest(daily, [again, row("decided", 1, image_bytes=b"4"), row("not")], "2026-11-25")
    bad = pa.schema([("listing_id", pa.string()), ("image_uri", pa.string())])
    write_manifest(daily, [{"listing_id": "x"}], "2026-11-26", schema=bad)
    decide(decision("decided"), decision("both"))
    decided = newest_decisions(read_decisions(spark, labels), "category", NOON)

    photos = read_photos(spark, str(labelled))
    joined = with_reviewed(photos, read_days(spark, str(daily)), decided)
    assert joined.columns == photos.columns
    found = joined.select("listing_id", "image_bytes", "category_id", "split").collect()
    assert sorted(map(tuple, found), key=str) == [
        ("both", b"1", "boots", None),
        ("decided", b"2", None, None),
        ("decided", b"4", None, None),
    ]
    assert "a day is left out: " in caplog.text
    assert "column image_index is missing" in caplog.text
