"""Embedding stores of tests: rows whose vectors follow from their keys."""

from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.columns import column_problems
from schemas.embeddings import EMBEDDINGS
from schemas.rejects import RejectReason

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


def check_embeddings(table: pa.Table, width: int) -> None:
    """Rows of the contract: keys, and either a vector of the width or a permanent reason."""
    assert not column_problems(table.schema, EMBEDDINGS, EMBEDDINGS.names)
    for row in table.to_pylist():
        assert row["image_key"] is not None
        assert row["backbone_digest"] is not None
        assert (row["vector"] is None) != (row["reject_reason"] is None)
        assert row["vector"] is None or len(row["vector"]) == 2 * width
        assert row["reject_reason"] is None or RejectReason(row["reject_reason"]).permanent


def keys_of(store: Path, digest: str) -> list[str]:
    """The keys of a backbone, as often as they are there, after a check of their rows."""
    table = pq.read_table(store / f"backbone={digest}", partitioning=None)
    check_embeddings(table, WIDTH)
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


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    return line
