"""Decisions in a table: added once, by several runs, and read by the jobs that take --labels."""

from datetime import timedelta

import pytest

from jobs.command.locations import Table
from jobs.stages.decisions import add_decisions, newest_decisions, read_decisions
from schemas.errors import DataContractError
from tests.spark.tables.conftest import Lake
from tests.support.decisions import NOON, as_table, decision

pytestmark = [pytest.mark.spark, pytest.mark.lake]


def test_decisions_are_added_once(lake: Lake) -> None:
    labels = Table(lake.flag("other"))
    first = [decision("a"), decision("b", "unsure")]
    assert add_decisions(lake.spark, labels, as_table(*first), "run 1") == 2
    later = decision("b", category_id="boots", decided_at=NOON + timedelta(hours=1))
    assert add_decisions(lake.spark, labels, as_table(*first, later), "run 2") == 1
    assert add_decisions(lake.spark, labels, as_table(*first, later), "run 3") == 0
    assert lake.sql("SELECT run_id, count(*) FROM {other} GROUP BY run_id ORDER BY run_id") == [
        ("run 1", 2),
        ("run 2", 1),
    ]
    found = newest_decisions(read_decisions(lake.spark, labels), "category", NOON)
    rows = found.select("listing_id", "decision", "category_id").collect()
    assert sorted(map(tuple, rows)) == [("a", "category", "caps"), ("b", "category", "boots")]


def test_another_table_is_refused(lake: Lake) -> None:
    lake.sql(f"CREATE TABLE {{other}} (listing_id string) USING {lake.using}")
    labels = Table(lake.flag("other"))
    with pytest.raises(DataContractError, match="column task is missing"):
        add_decisions(lake.spark, labels, as_table(decision("a")), "run")
