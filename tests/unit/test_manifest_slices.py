"""Columns of a table become the slices that evaluations look at."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.build_manifest import main

TABLE = "listing_id,path,seller,country\nL1,a.png,shop,DE\nL2,a.png,,FR\nL3,a.png,,\n"


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    (tmp_path / "images").mkdir()
    (tmp_path / "listings.csv").write_text(TABLE, encoding="utf-8")
    options = {
        "images": tmp_path / "images",
        "output": tmp_path / "manifest",
        "ds": "2026-11-25",
        "tracking-uri": f"sqlite:///{tmp_path / 'mlflow.db'}",
    }
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


def test_columns_named_are_slices(argv: list[str], tmp_path: Path) -> None:
    table = ["--listings", str(tmp_path / "listings.csv")]
    assert main([*argv, *table, "--slice-column", "seller", "--slice-column", "country"]) == 0
    rows = pq.read_table(tmp_path / "manifest" / "ds=2026-11-25").to_pylist()
    slices = [row["slices"] for row in rows]
    assert slices == [[("seller", "shop"), ("country", "DE")], [("country", "FR")], None]


@pytest.mark.parametrize(
    ("listings", "column", "code", "said"),
    [(True, "brand", 3, "no column brand"), (False, "seller", 2, "give both")],
)
def test_columns_that_are_not_there(
    argv: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    listings: bool,
    column: str,
    code: int,
    said: str,
) -> None:
    table = ["--listings", str(tmp_path / "listings.csv")] if listings else []
    assert main([*argv, *table, "--slice-column", column]) == code
    assert said in capsys.readouterr().err.splitlines()[-1]
