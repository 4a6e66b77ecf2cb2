"""MLflow's SQLite database: created once and whole, whoever else creates it or died creating it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import mlflow
import pytest
from mlflow import MlflowClient

from seer_model.tracking import runs
from seer_model.tracking.database import create_database, sqlite_file
from tests.support.tracking_database import new_database


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:///mlflow.db", Path("mlflow.db")),
        ("sqlite:////data/a b.db", Path("/data/a b.db")),
        ("sqlite:////data/mlflow.db?timeout=60", Path("/data/mlflow.db")),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
        ("http://127.0.0.1:5000", None),
        ("postgresql://me@db/mlflow", None),
    ],
)
def test_the_file_of_a_uri(uri: str, file: Path | None) -> None:
    assert sqlite_file(uri) == file


def test_several_at_once_create_one_whole_database(tmp_path: Path) -> None:
    file = tmp_path / "new" / "mlflow.db"
    file.parent.mkdir()
    # Left by one that was killed.
    file.with_name("mlflow.db.lock").touch()
    file.with_name("mlflow.db.new").write_bytes(b"half a database")
    file.touch()
    together = Barrier(4)

    def create(_: int) -> int:
        together.wait()
        create_database(file)
        return file.stat().st_ino

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(create, range(4)))) == 1, "created more than once"
    assert [path.name for path in file.parent.iterdir()] == ["mlflow.db"]
    assert MlflowClient(f"sqlite:///{file}").search_experiments()


def test_another_job_creates_the_experiment_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = new_database(tmp_path)
    runs.connect(uri)
    monkeypatch.setattr(mlflow, "get_experiment_by_name", lambda _: None)
    runs.connect(uri)
    with runs.tracked_run("test", {}) as run_id:
        pass
    assert MlflowClient().get_run(run_id).info.status == "FINISHED"
