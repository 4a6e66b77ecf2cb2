"""MLflow's SQLite database: created once, whole, however many jobs start at the same time."""

import fcntl
import shutil
import tempfile
from pathlib import Path

from mlflow import MlflowClient

from seer_model.processes import scratch_folder

__all__ = ["create_database", "sqlite_file"]

_SCHEME = "sqlite:///"


def sqlite_file(tracking_uri: str) -> Path | None:
    """Return the file of a SQLite URI; None for a server or a database in memory."""
    path = tracking_uri.removeprefix(_SCHEME).partition("?")[0]
    if not tracking_uri.startswith(_SCHEME) or path in {"", ":memory:"}:
        return None
    return Path(path)


def create_database(file: Path) -> None:
    """Create a database with MLflow's tables unless it exists; waits for whoever is creating it.

    MLflow itself migrates a new file in place, table by table: two processes at once fail over each
    other's tables, and one that is killed leaves a file that can never be opened. So the tables are
    made in a scratch file, under a lock, and an atomic rename puts it in place.

    Raises:
        OSError: The folder cannot be made or written.
    """
    if _exists(file):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    # Removed only once the database exists: whoever holds a removed lock finds it.
    lock = file.with_name(f"{file.name}.lock")
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not _exists(file):
            _put_database(file)
        lock.unlink(missing_ok=True)


def _exists(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _put_database(file: Path) -> None:
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch:
        made = Path(scratch) / "mlflow.db"
        MlflowClient(f"{_SCHEME}{made}").search_experiments()
        # The copy is on the file system of its destination, and MLflow holds no connection to it.
        copy = file.with_name(f"{file.name}.new")
        shutil.copyfile(made, copy)
        copy.replace(file)
