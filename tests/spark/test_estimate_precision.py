"""jobs.estimate_precision: which decisions say that an assigned category is right."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from jobs import estimate_precision
from schemas.reviews import REVIEWS
from tests.support.decisions import decision, write_decisions
from tests.support.embedding_rows import error_line

pytestmark = pytest.mark.spark

TREE = (
    "category_id,category_path\nc,Clothes\nc/caps,Clothes > Caps\nc/boots,Clothes > Boots\nt,Toys\n"
)
PATHS = {"c": ["Clothes"], "c/caps": ["Clothes", "Caps"], "c/boots": ["Clothes", "Boots"]}
Estimate = Callable[..., dict[str, Any]]


def asked(
    listing: str, category: str | None, selection: str = "random", drawn_from: int | None = 100
) -> dict[str, Any]:
    """A row of the queue; assigned a category, or to review if there is none."""
    return {
        "listing_id": listing,
        "task": "category",
        "place": 1,
        "selection": selection,
        "explanation": "drawn",
        "drawn_from": drawn_from,
        "decision": "assigned" if category else "needs_review",
        "category_id": category,
        "category_path": PATHS[category] if category else None,
        "candidates": [],
        "model_name": "m",
        "model_version": "1",
        "taxonomy_version": "1",
        "run_id": "run",
    }


def write_queue(folder: Path, ds: str, *rows: dict[str, Any]) -> None:
    path = folder / "reviews" / f"ds={ds}" / "reviews.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(list(rows), REVIEWS), path)


@pytest.fixture
def estimate(spark: SparkSession, tracking_uri: str, tmp_path: Path) -> Estimate:
    """Runs the job in this process and gives its report; `code` is the exit code expected."""
    (tmp_path / "tree.csv").write_text(TREE, encoding="utf-8")
    report = tmp_path / "report.json"

    def run(*flags: str, code: int = 0) -> dict[str, Any]:
        argv = ["--reviews", str(tmp_path / "reviews"), "--labels", str(tmp_path / "labels")]
        argv += [
            "--taxonomy",
            str(tmp_path / "tree.csv"),
            "--page",
            str(tmp_path / "new" / "p.html"),
        ]
        argv += ["--tracking-uri", tracking_uri, "--report", str(report)]
        assert estimate_precision.main([*argv, *flags]) == code
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 else {}

    return run


def test_what_decisions_say(estimate: Estimate, tracking_uri: str, tmp_path: Path) -> None:
    right = {"same": ("c/caps", "c/caps"), "above": ("c", "c/boots")}
    wrong = {"other": ("c/caps", "c/boots"), "none": ("c/caps", None)}
    open_ones = {"below": ("c/caps", "c"), "other tree": ("c/caps", "x"), "waiting": ("c", None)}
    every = right | wrong | open_ones
    write_queue(
        tmp_path,
        "2026-11-25",
        *(asked(name, assigned) for name, (assigned, _) in every.items()),
        asked("to review", None),
        asked("chosen", None, "instructive", None),
        *(asked(f"audited {i}", "c/caps", "audit", 80) for i in range(2)),
    )
    write_queue(tmp_path, "2026-11-16", asked("a week before", "c"), asked("not assigned", None))
    write_decisions(
        tmp_path / "labels",
        *(decision(name, category_id=chosen) for name, (_, chosen) in every.items() if chosen),
        decision("none", "not_in_taxonomy"),
        decision("audited 0", category_id="c/caps"),
        decision("audited 1", "bad_photo"),
        decision("to review", category_id="t"),
        decision("chosen", category_id="t"),
        decision("a week before", category_id="t"),
    )
    figures = estimate("--target-precision", "0.9")
    before, week = figures["weeks"]
    assert (week["week"], week["days"], week["assigned"]) == ("2026-11-23", 1, 80)
    assert (week["right"], week["decided"], week["undecided"]) == (3, 5, 4)
    assert week["precision"] == pytest.approx(0.6)
    assert (before["week"], before["assigned"], before["precision"]) == ("2026-11-16", 50, 0)
    assert (figures["decided"], figures["undecided"]) == (6, 4)
    page = (tmp_path / "new" / "p.html").read_text(encoding="utf-8")
    assert "In the week from 2026-11-23, 60 % of the assigned listings were right" in page
    history = MlflowClient(tracking_uri).get_metric_history(figures["run_id"], "precision")
    assert [metric.value for metric in history] == pytest.approx([0, 0.6])


def test_no_decision_yet(estimate: Estimate, tmp_path: Path) -> None:
    write_queue(tmp_path, "2026-11-25", asked("a", "c"))
    figures = estimate()
    assert (figures["decided"], figures["undecided"]) == (0, 1)
    assert "Nobody has decided" in (tmp_path / "new" / "p.html").read_text(encoding="utf-8")


def test_no_queue(estimate: Estimate, capsys: pytest.CaptureFixture[str]) -> None:
    estimate(code=3)
    assert "has no ds=…/reviews.parquet" in error_line(capsys)


def test_a_damaged_queue(
    estimate: Estimate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_queue(tmp_path, "2026-11-25", asked("a", "c"))
    file = tmp_path / "reviews" / "ds=2026-11-25" / "reviews.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    estimate(code=3)
    assert "is damaged, or not Parquet" in error_line(capsys)
    pq.write_table(pa.table({"listing_id": ["a"]}), file)
    estimate(code=3)
    assert "column task is missing" in error_line(capsys)
