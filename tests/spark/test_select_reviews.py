"""jobs.select_reviews: whom it asks about and why, the same again, and nobody twice."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs import select_reviews
from schemas.columns import column_problems
from schemas.reviews import REVIEWS
from seer_model.categorizer.bundle import Bundle
from tests.support.decisions import decision, write_decisions
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

BUDGET = 20
Select = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def day(
    categorize: Categorize,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    bundle: Bundle,
    broken_photos: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A day of listings of which some are assigned, one is broken and four have a label."""
    folder = tmp_path_factory.mktemp("day")
    rows = [
        row(
            f"{colour} {i}",
            image_bytes=draw_photo(colour, i),
            category_id=colour if i == 0 else None,
        )
        for colour in bundle.tree.classes
        for i in range(30)
    ]
    rows.append(row("broken", image_bytes=broken_photos["truncated"]))
    manifest = write_manifest(folder / "manifest", rows)
    categorize(manifest, folder / "categories", "--embeddings", str(folder / "store"))
    return folder


@pytest.fixture
def select(day: Path, bundle_folder: Path, tracking_uri: str, tmp_path: Path) -> Select:
    """Runs the job in this process and gives its report; `code` is the exit code expected."""

    def run(*flags: str, code: int = 0) -> dict[str, Any]:
        report = tmp_path / "report.json"
        argv = ["--categories", str(day / "categories"), "--manifest", str(day / "manifest")]
        argv += ["--ds", DS, "--model", str(bundle_folder), "--embeddings", str(day / "store")]
        argv += ["--output", str(tmp_path / "queue"), "--tracking-uri", tracking_uri]
        argv += ["--budget", str(BUDGET), "--report", str(report)]
        assert select_reviews.main([*argv, *flags]) == code
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 else {}

    return run


def queue(folder: Path, ds: str = DS) -> pa.Table:
    table = pq.read_table(folder / "queue" / f"ds={ds}" / "reviews.parquet")
    assert not column_problems(table.schema, REVIEWS, REVIEWS.names)
    return table


def mean_margin(rows: pa.Table) -> float:
    """How much likelier the best class is than the next."""
    gaps = [row[0]["score"] - row[1]["score"] for row in rows["candidates"].to_pylist()]
    return sum(gaps) / len(gaps)


def test_whom_it_asks_about(
    day: Path, select: Select, read_categories: ReadCategories, tmp_path: Path
) -> None:
    figures = select()
    published = read_categories(day / "categories")
    decisions = dict(
        zip(*published.select(["listing_id", "decision"]).to_pydict().values(), strict=True)
    )
    by_decision = Counter(
        decision for name, decision in decisions.items() if not name.endswith(" 0")
    )
    assert figures["listings"] == len(published)
    assert figures["labelled"] == 4
    assert {name: figures[f"open_{name}"] for name in by_decision} == by_decision
    assert figures["selected"] == {"random": 6, "audit": 2, "instructive": 12}
    assert figures["photos_embedded"] == figures["without_vector"] == figures["budget_left"] == 0

    found = queue(tmp_path)
    assert found["place"].to_pylist() == list(range(1, BUDGET + 1))
    assert len(set(found["listing_id"].to_pylist())) == BUDGET
    for each in found.to_pylist():
        assert not each["listing_id"].endswith(" 0")
        assert decisions[each["listing_id"]] == each["decision"]
        match each["selection"]:
            case "random":
                assert each["drawn_from"] == sum(by_decision.values()) - by_decision["rejected"]
                assert each["explanation"] == f"drawn at random from {each['drawn_from']} listings"
            case "audit":
                assert each["decision"] == "assigned"
                assert each["drawn_from"] == by_decision["assigned"]
                assert "drawn at random from" in each["explanation"]
            case "instructive":
                assert each["decision"] == "needs_review"
                assert each["drawn_from"] is None
                assert "unlike the others chosen" in each["explanation"]

    instructive = found.filter(pc.equal(found["selection"], "instructive"))
    to_review = published.filter(pc.equal(published["decision"], "needs_review"))
    assert mean_margin(instructive) < 0.8 * mean_margin(to_review)


def test_the_same_again_and_another_draw(select: Select, tmp_path: Path) -> None:
    select()
    first = queue(tmp_path).drop_columns("run_id")
    select()
    assert queue(tmp_path).drop_columns("run_id").equals(first)
    select("--seed", "1")
    drawn = [
        set(table.filter(pc.equal(table["selection"], "random"))["listing_id"].to_pylist())
        for table in (first, queue(tmp_path))
    ]
    assert drawn[0] != drawn[1]


def test_nobody_is_asked_about_twice(select: Select, tmp_path: Path) -> None:
    select()
    first = queue(tmp_path)
    other_day = tmp_path / "queue" / "ds=2026-11-24"
    (tmp_path / "queue" / f"ds={DS}").rename(other_day)
    decided = set(first["listing_id"].to_pylist()[:5])
    figures = select()
    assert figures["asked_before"] == BUDGET
    assert not set(queue(tmp_path)["listing_id"].to_pylist()) & set(first["listing_id"].to_pylist())

    (other_day / "reviews.parquet").unlink()
    labels = write_decisions(
        tmp_path / "labels", *(decision(name, "unsure") for name in sorted(decided))
    )
    figures = select("--labels", str(labels))
    assert figures["decided"] == 5
    assert figures["asked_before"] == 0
    assert not set(queue(tmp_path)["listing_id"].to_pylist()) & decided


def test_a_budget_that_the_day_cannot_fill(
    select: Select, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    figures = select("--budget", "1000")
    assert figures["budget_left"] == 1000 - queue(tmp_path).num_rows > 0
    assert queue(tmp_path).num_rows == figures["open_assigned"] + figures["open_needs_review"]
    assert "are left to select" in caplog.text


def test_an_old_day_is_refused(
    day: Path, select: Select, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = pq.read_table(day / "categories" / f"ds={DS}").replace_schema_metadata(None)
    folder = tmp_path / "old" / f"ds={DS}"
    folder.mkdir(parents=True)
    old = published.drop_columns("decided_by")
    pq.write_table(old, folder / "part-0.parquet", coerce_timestamps="us")
    select("--categories", str(folder.parent), code=3)
    assert "has no column decided_by; categorize the day again" in error_line(capsys)


def test_shares_of_more_than_the_budget(select: Select, capsys: pytest.CaptureFixture[str]) -> None:
    select("--audit-share", "0.7", "--random-share", "0.5", code=2)
    assert "error: --random-share and --audit-share are more" in error_line(capsys)
