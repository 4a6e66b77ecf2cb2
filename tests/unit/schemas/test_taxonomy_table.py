"""Untrusted taxonomy tables, in bundles whose digests are right."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.taxonomy import TAXONOMY
from tests.support.refusals import EditJson, refusal, seal
from tests.support.trunks import MakeFolder

Rows = list[dict[str, Any]]
Change = Callable[[Rows], object]


@pytest.fixture
def refused(folder: Path, edit_json: EditJson) -> Callable[[pa.Table], str]:
    """Puts a table into the bundle and gives the message that refuses it."""

    def refused(table: pa.Table) -> str:
        pq.write_table(table, folder / "taxonomy.parquet")
        seal(folder, edit_json)
        return refusal(folder)

    return refused


@pytest.fixture
def table(saved_bundle: Path) -> pa.Table:
    return pq.read_table(saved_bundle / "taxonomy.parquet")


def row(number: int, **values: object) -> Change:
    return lambda rows: rows[number].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(row(1, category_id=None), "empty category_id", id="no id"),
        pytest.param(row(1, category_id=""), "empty category_id", id="empty id"),
        pytest.param(row(1, category_id="a"), "already at", id="an id twice"),
        pytest.param(row(1, category_path=None), "empty name in its path", id="no path"),
        pytest.param(row(1, category_path=[]), "empty name in its path", id="empty path"),
        pytest.param(row(1, category_path=["Apparel", None]), "empty name", id="no name"),
        pytest.param(row(1, category_path=["Apparel"]), "already at", id="a path twice"),
        pytest.param(row(1, parent_id="nosuch"), "is not in the taxonomy", id="no parent"),
        pytest.param(row(1, parent_id="a-1"), "its own ancestor", id="its own parent"),
        pytest.param(row(0, parent_id="a-1-1"), "its own ancestor", id="a circle"),
        pytest.param(row(2, parent_id="f"), "does not extend that of its parent", id="moved"),
        pytest.param(row(2, parent_id=None), "does not extend that of its parent", id="orphan"),
        pytest.param(lambda rows: rows.clear(), "at least one category", id="none"),
        pytest.param(lambda rows: rows.pop(), "'t-1'", id="a class is missing"),
        pytest.param(row(1, category_id="x\ny" * 9000), "not in the taxonomy", id="an id of lines"),
        pytest.param(row(0, category_path=["Cloth\x1b[31m"]), "does not extend", id="another name"),
    ],
)
def test_rows_that_are_not_a_tree(
    refused: Callable[[pa.Table], str], table: pa.Table, change: Change, message: str
) -> None:
    rows = table.to_pylist()
    change(rows)
    nullable = pa.schema([field.with_nullable(True) for field in table.schema])
    assert message in refused(pa.Table.from_pylist(rows, nullable))


@pytest.mark.parametrize("name", TAXONOMY.names)
def test_a_missing_or_mistyped_column_is_named(
    refused: Callable[[pa.Table], str], table: pa.Table, name: str
) -> None:
    position = TAXONOMY.names.index(name)
    assert f"column {name} is missing" in refused(table.drop_columns([name]))
    numbers = pa.array(range(len(table)), pa.int64())
    assert f"column {name} is int64" in refused(table.set_column(position, name, numbers))


def test_text_that_is_not_utf8(refused: Callable[[pa.Table], str], table: pa.Table) -> None:
    broken = pa.array([b"\xff\xfe"] * len(table)).view(pa.string())
    assert "not UTF-8" in refused(table.set_column(0, "category_id", broken))


@pytest.mark.parametrize("version", [b"\xff", b"1\n2", b"\x1b[2J"])
def test_an_unprintable_version(
    refused: Callable[[pa.Table], str], table: pa.Table, version: bytes
) -> None:
    assert "taxonomy.parquet" in refused(
        table.replace_schema_metadata({b"taxonomy_version": version})
    )


def test_too_many_rows(refused: Callable[[pa.Table], str]) -> None:
    """Two million equal rows take few bytes in a file."""
    names = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000_000, pa.int8()), ["a"])
    paths = pa.ListArray.from_arrays(pa.array(range(2_000_001), pa.int32()), names)
    table = pa.table({"category_id": names, "category_path": paths, "parent_id": names})
    assert "more than 1000000 categories" in refused(table)


def test_a_type_that_pickles_is_not_unpickled(
    refused: Callable[[pa.Table], str], table: pa.Table, tmp_path: Path
) -> None:
    """pyarrow did so before version 14 (CVE-2023-47248)."""
    trap = pickle.dumps(MakeFolder(tmp_path / "made"))
    extension = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": trap,
    }
    field = pa.field("category_id", pa.string(), metadata=extension)
    refused(table.set_column(0, field, table["category_id"]).slice(1))
    assert not (tmp_path / "made").exists()


def test_a_folder_in_its_place(folder: Path) -> None:
    aside = (folder / "taxonomy.parquet").rename(folder.parent / "part-0.parquet")
    (folder / "taxonomy.parquet").mkdir()
    aside.rename(folder / "taxonomy.parquet/part-0.parquet")
    assert "taxonomy.parquet" in refusal(folder)
